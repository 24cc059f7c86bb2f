"""Accuracy against latency, as points: what a plot draws and what nobody else beats.

Latency is the share of the reference's time measured in the same minutes (the two ran in turns), because the absolute
times of two variants come from different minutes. Accuracy is the figure that the gate asks for, so that the gate is a
line in the plot: the signal-to-noise ratio where it asks for one (and where nothing was asked), else the cosine of the
worst hundredth, else the lower bound of top-1 agreement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.routing.ranking import nearest
from model_store.entities import REFERENCE, Agreement, Timing, Variant, Verdict


@dataclass(frozen=True, slots=True)
class Axis:
    """An accuracy: more is better. `place` makes the scale on which equal distances mean the same."""

    key: str
    label: str
    value: Callable[[Agreement], float | None]
    place: Callable[[float], float]
    told: Callable[[float], str]
    """In words, with its unit."""
    ticks: tuple[float, ...]
    most: float
    """Everything from here on is drawn at the upper edge: equal to the reference for all purposes."""


def _nines(value: float) -> float:
    return -math.log10(max(1e-9, 1 - value))


def _decibels(value: float) -> str:
    return "bit-equal" if value >= 200 else f"{value:.1f}".removesuffix(".0") + " dB"


AXES: dict[str, Axis] = {
    "sqnr_db": Axis(
        "sqnr_db", "signal-to-noise ratio of the outputs, dB", lambda a: a.sqnr_db, float,
        _decibels, tuple(float(db) for db in range(-20, 110, 10)), 100.0,
    ),
    "cosine": Axis(
        "cosine", "cosine, worst hundredth of the samples", lambda a: a.cosine_p1, _nines,
        lambda value: f"{value:.6g}", (0.0, 0.5, 0.9, 0.97, 0.99, 0.999, 0.9999, 0.99999, 0.999999), 0.999999,
    ),
    "top1": Axis(
        "top1", "top-1 agreement, lower 95 % bound", lambda a: a.top1_lower, lambda value: 100 * value,
        lambda value: f"{100 * value:.1f} %", tuple(percent / 100 for percent in range(0, 101, 5)), 1.0,
    ),
}  # fmt: skip
"""Key of a gate -> its axis; a gate on the drop of label accuracy alone has none, and its plot shows the first."""


@dataclass(frozen=True, slots=True)
class Point:
    """A variant in one bucket. `time` is its share of the reference's time with the 95 % interval around it."""

    variant: str
    verdict: Verdict
    time: float
    time_lower: float
    time_upper: float
    p50_s: float
    accuracy: float
    chosen: bool
    on_front: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """A least accuracy, and the variants it was asked of."""

    accuracy: float
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """One bucket of rows. `points` holds the reference first; `gates` may be several: by precision, by policy."""

    rows: int
    axis: Axis
    points: tuple[Point, ...]
    gates: tuple[Gate, ...]
    reference_p50_s: float

    @property
    def front(self) -> tuple[Point, ...]:
        """What no other point beats in both, fastest first."""
        return tuple(sorted((point for point in self.points if point.on_front), key=lambda point: point.time))


def plots(variants: Sequence[Variant], chosen: Mapping[int, str]) -> tuple[Plot, ...]:
    """A plot for every batch size at which a variant was timed and compared; none where there is nothing to draw.

    `chosen`: rows -> the variant that answers there, and at batch sizes nearer to these rows than to others.
    """
    axis = AXES[_asked(variants)]
    found = []
    for rows in sorted({t.rows for v in _compared(variants) if v.evidence for t in v.evidence.timings}):
        measured = [(v, t) for v in _compared(variants) if (t := _timing(v, rows)) is not None]
        answers = chosen[nearest(tuple(sorted(chosen)), rows)] if chosen else None
        points = [
            point
            for variant, timing in measured
            if (point := _point(variant, timing, axis, variant.id == answers)) is not None
        ]
        if not points:
            continue
        reference = _median([timing.reference_p50_s for _, timing in measured])
        best = Point(REFERENCE, Verdict.SERVING, 1.0, 1.0, 1.0, reference, axis.most, answers == REFERENCE)
        found.append(Plot(rows, axis, _with_front([best, *points], axis), _gates(variants, axis), reference))
    return tuple(found)


def _compared(variants: Iterable[Variant]) -> list[Variant]:
    return [v for v in variants if v.id != REFERENCE and v.evidence is not None and v.evidence.agreement is not None]


def _asked(variants: Iterable[Variant]) -> str:
    asked = [v.evidence.gate for v in variants if v.evidence is not None and v.evidence.gate]
    return next((key for key in AXES if any(key in gate for gate in asked)), "sqnr_db")


def _timing(variant: Variant, rows: int) -> Timing | None:
    timings = variant.evidence.timings if variant.evidence is not None else ()
    return next((timing for timing in timings if timing.rows == rows and timing.speedup > 0), None)


def _point(variant: Variant, timing: Timing, axis: Axis, chosen: bool) -> Point | None:
    assert variant.evidence is not None and variant.evidence.agreement is not None
    accuracy = axis.value(variant.evidence.agreement)
    if accuracy is None:
        return None
    return Point(
        variant=variant.id,
        verdict=variant.verdict,
        time=1 / timing.speedup,
        time_lower=1 / max(timing.speedup, timing.speedup_upper),
        time_upper=1 / timing.speedup_lower if timing.speedup_lower > 0 else 1 / timing.speedup,
        p50_s=timing.p50_s,
        accuracy=accuracy,
        chosen=chosen,
    )


def _with_front(points: Sequence[Point], axis: Axis) -> tuple[Point, ...]:
    merits = [(-point.time, min(point.accuracy, axis.most)) for point in points]

    def beaten(merit: tuple[float, float]) -> bool:
        return any(other != merit and other[0] >= merit[0] and other[1] >= merit[1] for other in merits)

    return tuple(replace(p, on_front=not beaten(merit)) for p, merit in zip(points, merits, strict=True))


def _gates(variants: Iterable[Variant], axis: Axis) -> tuple[Gate, ...]:
    asked: dict[float, list[str]] = {}
    for variant in variants:
        if variant.evidence is not None and axis.key in variant.evidence.gate:
            asked.setdefault(variant.evidence.gate[axis.key], []).append(variant.id)
    return tuple(Gate(accuracy, tuple(ids)) for accuracy, ids in sorted(asked.items()))


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]

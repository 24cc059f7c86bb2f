"""How to run a variant on this machine, chosen from measured curves: a pure function of rounds of durations.

A setting is threads x instances. The objective picks: latency takes the setting whose batches take the least time,
throughput the one that answers most rows a second in the largest batch. Only differences beyond the noise count (the
interval of a ratio over the quieter rounds, as in measure.py); what ties is decided by the other figure, and
what still ties stays as simple as it is: all cores for one batch at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from compilers.intervals import ratio_of_medians
from compilers.timing.measure import WIN, quieter_half
from model_store.entities import PlanPoint

By = Literal["latency", "throughput"]

PAYS = 1.1
"""A larger batch must answer this many times the rows a second of the one before it."""
HOP_S = 50e-6
"""What a batch costs besides its run: two messages, copies into the slot and out of it (benchmarks/README.md)."""
WORTH_SHARING_S = 4 * HOP_S
"""Batches that take less run one at a time: what a batch costs besides its run is done by one interpreter for all."""
MOST_INSTANCES = 16


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """`instances` batches at a time, each with `threads` threads."""

    threads: int
    instances: int = 1

    @property
    def words(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        return threads if self.instances == 1 else f"{self.instances} instances of {threads}"


@dataclass(frozen=True, slots=True)
class Rounds:
    """One setting at one batch size, round by round: the time of a batch among the others, and what a batch adds.

    Seconds. Index i of every setting at that batch size is of the same moment.
    """

    took_s: Sequence[float]
    pace_s: Sequence[float]


Curve = Mapping[int, Rounds]
"""By batch size, ascending."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster, with its interval."""

    value: float
    lower: float

    @property
    def proven(self) -> bool:
        return self.lower > WIN

    @property
    def about_equal(self) -> bool:
        return self.value >= 1 / WIN


def settings(cores: int) -> tuple[Setting, ...]:
    """What is worth measuring on so many cores, the simplest first."""
    threads = sorted({cores, max(1, cores // 2), 1}, reverse=True)
    crowds = [Setting(each, min(MOST_INSTANCES, cores // each)) for each in threads]
    return (*(Setting(each) for each in threads), *(setting for setting in crowds if setting.instances > 1))


def by(objective: str) -> By:
    """What a policy's objective asks of the clock. Bytes and memory are no matter of threads."""
    return "throughput" if objective == "throughput" else "latency"


def choose(curves: Mapping[Setting, Curve], objective: str) -> Setting:
    """The setting that serves. `curves` in order of simplicity; all hold the same batch sizes.

    Objectives other than latency and throughput ask for little memory: they keep to one instance. So do models whose
    largest batch is over before a second one could begin.
    """
    simplest = next(iter(curves.values()))
    shared = objective in ("latency", "throughput") and _typical(simplest[max(simplest)].took_s) >= WORTH_SHARING_S
    offered = [one for one in curves if one.instances == 1 or shared]
    chosen = offered[0]
    for other in offered[1:]:
        if _displaces(curves[other], curves[chosen], by(objective)):
            chosen = other
    return chosen


def _displaces(other: Curve, chosen: Curve, kind: By) -> bool:
    latency = over_all(chosen, other, "latency")
    if kind == "throughput":
        largest = list(chosen)[-1]
        pace = compared(chosen[largest].pace_s, other[largest].pace_s)
        return pace.proven or (pace.about_equal and latency.proven)
    return latency.proven or (latency.about_equal and over_all(chosen, other, "throughput").proven)


def over_all(chosen: Curve, other: Curve, kind: By) -> Ratio:
    """How many times faster `other` is over all batch sizes: the geometric mean."""
    ratios = []
    for rows, rounds in chosen.items():
        sides = (rounds.took_s, other[rows].took_s) if kind == "latency" else (rounds.pace_s, other[rows].pace_s)
        ratios.append(compared(*sides))
    return Ratio(_mean([ratio.value for ratio in ratios]), _mean([ratio.lower for ratio in ratios]))


def compared(chosen: Sequence[float], other: Sequence[float]) -> Ratio:
    """How many times faster `other` is than `chosen`, in the rounds that disturbed both least."""
    sides = np.asarray(chosen), np.asarray(other)
    quiet = quieter_half(*sides)
    value, lower, _ = ratio_of_medians(sides[0][quiet], sides[1][quiet])
    quietest = [np.percentile(side[quiet], 25) for side in sides]
    return Ratio(value, min(lower, float(quietest[0] / quietest[1])))


def points(setting: Setting, curve: Curve) -> tuple[PlanPoint, ...]:
    """The curve in figures: the quieter half of its rounds."""
    found = []
    for rows, rounds in curve.items():
        pace = _typical(rounds.pace_s)
        found.append(PlanPoint(setting.threads, setting.instances, rows, _typical(rounds.took_s), rows / pace))
    return tuple(found)


def buckets(curve: Sequence[PlanPoint]) -> tuple[int, ...]:
    """Batch sizes that pay, ascending: the first, and each that answers a tenth more rows a second than those before.

    One that does not is passed over, as kernels have sizes they dislike and machines noisy moments. What a batch costs
    besides its run counts: for a model of microseconds it is most of the time.
    """
    kept: list[int] = []
    best = 0.0
    for point in curve:
        rate = point.rows / (point.rows / point.rows_per_s + HOP_S)
        if not kept or rate >= PAYS * best:
            kept.append(point.rows)
            best = rate
    return tuple(kept)


def reason(curves: Mapping[Setting, Curve], chosen: Setting, kept: Sequence[int], padded: Sequence[int]) -> str:
    """Why, in words: what the chosen setting takes, what the others would, where more rows stop to pay."""
    own = curves[chosen]
    sizes = list(own)
    ends = [sizes[0]] if len(sizes) == 1 else [sizes[0], sizes[-1]]
    took = ", ".join(f"{_ms(_typical(own[rows].took_s))} at {_rows(rows)}" for rows in ends)
    told = [f"{_one(chosen)}: {took}"]
    for other, curve in curves.items():
        if other != chosen:
            first, last = ends[0], ends[-1]
            latency = compared(own[first].took_s, curve[first].took_s).value
            rate = compared(own[last].pace_s, curve[last].pace_s).value
            told.append(f"{_one(other)}: {_times(latency)} at {_rows(first)}, {rate:.2f}x the rows/s at {last}")
    if kept[-1] < sizes[-1]:
        told.append(f"more than {_rows(kept[-1])} at a time gain less than 10 %")
    told += [f"filling up to {rows} rows is faster than fewer" for rows in padded]
    return "; ".join(told)


def _one(setting: Setting) -> str:
    return setting.words + (", 1 instance" if setting.instances == 1 else "")


def _rows(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"


def _times(ratio: float) -> str:
    if 1 / WIN <= ratio <= WIN:
        return "as fast"
    return f"{ratio:.2f}x faster" if ratio > 1 else f"{1 / ratio:.2f}x slower"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _typical(seconds: Sequence[float]) -> float:
    ordered = np.sort(np.asarray(seconds))
    return float(np.median(ordered[: max(1, (len(ordered) + 1) // 2)]))


def _mean(ratios: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(ratios))))

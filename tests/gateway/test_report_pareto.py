"""Accuracy against latency: which points there are, which nothing beats, and which gate they stand against."""

from dataclasses import replace
from xml.etree.ElementTree import tostring

import pytest

from gateway.report.pareto import plots
from gateway.report.plot import draw
from model_store.entities import REFERENCE, Agreement, Evidence, ModelVersion, Timing, Variant, Verdict, VersionStatus
from tests.rows import EVIDENCE, SIGNATURE, digest, variant

VERSION = ModelVersion(
    "m", "1", VersionStatus.READY, "", digest("m"), 1000, SIGNATURE, digest("s"), {}, 9, {"Gemm": 1}, 0.0
)
AGREEMENT = EVIDENCE.agreement
assert AGREEMENT is not None


def timing(rows: int, speedup: float) -> Timing:
    return Timing(rows, 0.01 / speedup, 0.01, 0.01, 0.01, speedup, speedup * 0.95, speedup * 1.05, 100)


def measured(
    name: str, speedup: float, agreement: Agreement | None = AGREEMENT, gate: dict[str, float] | None = None
) -> Variant:
    evidence = Evidence(agreement, (timing(1, speedup), timing(8, 2 * speedup)), {}, gate=gate or {})
    return replace(variant(VERSION, name), evidence=evidence)


def at(sqnr_db: float) -> Agreement:
    return replace(AGREEMENT, sqnr_db=sqnr_db)


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    tried = [
        variant(VERSION),
        measured("a.fast", 4.0, at(25.0)),
        measured("a.right", 2.0, at(60.0)),
        measured("a.beaten", 1.9, at(40.0)),
        measured("a.slow", 0.5, at(119.0)),
    ]
    first, second = plots(tried, {1: "a.fast", 8: "a.right"})
    assert (first.rows, second.rows) == (1, 8)
    assert [point.variant for point in first.front] == ["a.fast", "a.right", REFERENCE]
    assert [point.variant for point in first.points if point.chosen] == ["a.fast"]
    assert [point.variant for point in second.points if point.chosen] == ["a.right"]
    alone = plots(tried, {1: REFERENCE})
    assert [[point.variant for point in plot.points if point.chosen] for plot in alone] == [[REFERENCE]] * 2
    fast = next(point for point in second.points if point.variant == "a.fast")
    assert fast.time == pytest.approx(1 / 8)
    assert fast.time_lower < fast.time < fast.time_upper
    assert first.reference_p50_s == 0.01


def test_nothing_is_drawn_of_what_was_not_compared_or_not_timed() -> None:
    rejected = replace(variant(VERSION, "a.wrong"), evidence=replace(EVIDENCE, timings=()))
    assert plots([variant(VERSION), rejected, measured("a.unjudged", 2.0, None)], {}) == ()
    assert plots([], {}) == ()


@pytest.mark.parametrize(
    ("gate", "axis", "value"),
    [
        ({}, "sqnr_db", 31.5),
        ({"sqnr_db": 20.0, "cosine": 0.9}, "sqnr_db", 31.5),
        ({"cosine": 0.97}, "cosine", 0.999),
        ({"top1": 0.9}, "top1", 0.98),
        ({"max_drop": 0.01}, "sqnr_db", 31.5),
    ],
)
def test_accuracy_is_the_figure_the_gate_asks_for(gate: dict[str, float], axis: str, value: float) -> None:
    plot, _ = plots([measured("a.int8", 2.0, gate=gate)], {})
    assert plot.axis.key == axis
    assert plot.points[1].accuracy == value
    assert [line.accuracy for line in plot.gates] == ([gate[axis]] if axis in gate else [])


def test_gates_are_told_apart_by_whom_they_were_asked_of() -> None:
    tried = [measured("a.int8", 2.0, gate={"sqnr_db": 20.0}), measured("a.bf16", 1.5, gate={"sqnr_db": 30.0})]
    plot, _ = plots(tried, {})
    assert [(gate.accuracy, gate.variants) for gate in plot.gates] == [(20.0, ("a.int8",)), (30.0, ("a.bf16",))]


@pytest.mark.parametrize("speedups", [(1.0, 1.0), (0.02, 50.0), (1e-9, 1.01)])
@pytest.mark.parametrize("levels", [(200.0, 200.0), (-60.0, 31.5), (0.0, 0.0)])
def test_every_mark_lies_inside_the_picture(speedups: tuple[float, float], levels: tuple[float, float]) -> None:
    tried = [
        measured(f"a.{n}", speed, at(level), {"sqnr_db": 20.0})
        for n, (speed, level) in enumerate(zip(speedups, levels, strict=True))
    ]
    for verdict in Verdict:
        svg = draw(plots([replace(item, verdict=verdict) for item in tried], {1: "a.0"})[0])
        for element in svg.iter():
            for key, most in (("x", 760), ("x1", 760), ("x2", 760), ("cx", 760), ("y1", 430), ("y2", 430), ("cy", 430)):
                assert 0 <= float(element.get(key, "0")) <= most, tostring(element)
        assert b"nan" not in tostring(svg)


def test_no_words_of_a_plot_cover_others_or_leave_it() -> None:
    """Names crowd where gates are and at both edges: as wide as letters are at most, none is hidden or cut off."""
    crowd = [
        ("fast", 9.0, 20.5),
        ("right-of-it", 8.0, 20.4),
        ("slowest", 0.3, 20.1),
        ("as-slow-under-a-long-name", 0.31, 20),
    ]
    gate = {"sqnr_db": 20.0}
    svg = draw(plots([measured(f"openvino-cpu.{name}", speed, at(db), gate) for name, speed, db in crowd], {})[0])
    boxes = []
    for text in svg.iter("text"):
        if text.get("class") in {"tick", None}:
            continue
        words, x, y = "".join(text.itertext()), float(text.get("x", "")), float(text.get("y", ""))
        wide = 6.6 * len(words)
        left = x - wide if text.get("text-anchor") == "end" else x
        assert left >= 0 and left + wide <= 760 and y <= 430, words
        boxes.append((words, left, left + wide, y))
    assert {"gate 20 dB", "reference", *(f"openvino-cpu.{name}" for name, _, _ in crowd)} == {box[0] for box in boxes}
    for one, left, right, y in boxes:
        for other, start, end, level in boxes:
            assert one == other or abs(y - level) >= 11 or right <= start or end <= left, (one, other)

"""The accuracy-latency plot as inline SVG: no script, no font, no picture from elsewhere.

Verdicts differ by shape as well as by colour (disc: serving, ring: eligible, diamond: inconclusive, cross: rejected);
whatever the plot shows is in the table of variants too, and its description says the main thing in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from gateway.report import strokes
from gateway.report.markup import E, add
from gateway.report.pareto import Axis, Gate, Plot, Point
from gateway.report.strokes import GRID, hollow, line, tick
from gateway.report.units import percent, rows, seconds
from model_store.entities import REFERENCE, Verdict

WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 74, 168, 30, 62
_LABEL_STEP, _LETTER, _MARK = 15, 6.6, 8
_SHARES = (0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where words stand: from `left` to `right` on the line `y`."""

    left: float
    right: float
    y: float

    def covers(self, other: _Place) -> bool:
        return abs(self.y - other.y) < _LABEL_STEP and self.left < other.right and other.left < self.right


class _Scale:
    """Where a share of the reference's time (logarithmic) and an accuracy lie in the picture, in pixels."""

    def __init__(self, plot: Plot) -> None:
        self.axis = plot.axis
        shares = [share for p in plot.points for share in (p.time_lower, p.time_upper)]
        self.left = math.floor(2 * math.log2(min(*shares, 0.5)) - 0.2) / 2
        self.right = math.ceil(2 * math.log2(max(*shares, 1.0)) + 0.2) / 2
        wanted = [min(p.accuracy, plot.axis.most) for p in plot.points] + [gate.accuracy for gate in plot.gates]
        below = [tick for tick in plot.axis.ticks if tick < min(wanted)]
        self.low = plot.axis.place(below[-1] if below else min(wanted))
        self.high = plot.axis.place(plot.axis.most)

    def x(self, share: float) -> float:
        at = (math.log2(share) - self.left) / (self.right - self.left)
        return round(LEFT + at * (WIDTH - LEFT - RIGHT), 1)

    def y(self, accuracy: float) -> float:
        at = (self.axis.place(min(accuracy, self.axis.most)) - self.low) / max(1e-9, self.high - self.low)
        return round(HEIGHT - BOTTOM - max(0.0, at) * (HEIGHT - TOP - BOTTOM), 1)


def draw(plot: Plot) -> Element:
    scale = _Scale(plot)
    svg = strokes.picture(f"plot-{plot.rows}", title(plot), describe(plot), WIDTH, HEIGHT)
    _grid(svg, plot, scale)
    marks = ((scale.x(point.time), scale.y(point.accuracy)) for point in plot.points)
    taken = [_Place(x - _MARK, x + _MARK, y) for x, y in marks]
    for gate in plot.gates:
        _gate(svg, gate, plot, scale, taken)
    _front(svg, plot, scale)
    for point in sorted(plot.points, key=lambda p: scale.y(p.accuracy)):
        _name(svg, point, scale, taken)  # below the marks: the ground that a name is set off by hides what it covers
    for point in plot.points:
        _mark(svg, point, scale)
    return svg


def title(plot: Plot) -> str:
    return f"Accuracy against latency at {rows(plot.rows)}"


def describe(plot: Plot) -> str:
    """The plot in words."""
    told = [
        f"{p.variant} takes {percent(p.time)} of the reference's time"
        + ("" if p.variant == REFERENCE else f" at {plot.axis.told(p.accuracy)}")
        + (", chosen" if p.chosen else "")
        for p in sorted(plot.points, key=lambda p: p.time)
    ]
    gates = [f"the gate asks {gate_words(gate, plot.axis)}" for gate in plot.gates]
    return "; ".join((*told, *gates)) + "."


def gate_words(gate: Gate, axis: Axis) -> str:
    return f"{axis.told(gate.accuracy)} of {', '.join(gate.variants)}"


def _grid(svg: Element, plot: Plot, scale: _Scale) -> None:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    last = HEIGHT
    for level in plot.axis.ticks:
        y = scale.y(level)
        if scale.low <= plot.axis.place(level) <= scale.high + 1e-9 and last - y >= 16:
            last = int(y)
            told = plot.axis.told(level) if level < plot.axis.most else f"≥ {plot.axis.told(level)}"
            add(svg, line("grid", GRID, (LEFT, y), (right, y)), tick(told, LEFT - 8, y + 4, "end"))
    for share in _SHARES:
        if scale.left <= math.log2(share) <= scale.right:
            x = scale.x(share)
            told = seconds(share * plot.reference_p50_s)
            add(svg, line("grid", GRID, (x, TOP), (x, bottom)))
            add(svg, tick(f"{100 * share:g} %", x, bottom + 16), tick(told, x, bottom + 30))
    strokes.frame(svg, LEFT, right, TOP, bottom)
    middle = (LEFT + right) / 2
    words = f"time of {rows(plot.rows)}, share of the reference's (median; further left is faster)"
    add(svg, E("text", words, x=middle, y=HEIGHT - 10, text_anchor="middle"))
    half = (TOP + bottom) / 2
    add(svg, E("text", plot.axis.label, transform=f"translate(14 {half:g}) rotate(-90)", text_anchor="middle"))


def _gate(svg: Element, gate: Gate, plot: Plot, scale: _Scale, taken: list[_Place]) -> None:
    """Told right of the picture: what is fast, and mostly answers, has its name on the left."""
    y, right = scale.y(gate.accuracy), WIDTH - RIGHT
    drawn = line("gate", strokes.GATE, (LEFT, y), (right, y), stroke_dasharray="6 4")
    add(svg, add(drawn, E("title", f"asked of {', '.join(gate.variants)}")))
    told = f"gate {plot.axis.told(gate.accuracy)}"
    at = _free(right + 6, y + 4, told, taken)
    add(svg, E("text", told, class_="gate-label", font_size=11, fill=strokes.GATE, x=at.left, y=at.y))


def _front(svg: Element, plot: Plot, scale: _Scale) -> None:
    """As stairs: between two points of the front nothing is known but that the slower one is no worse."""
    steps: list[tuple[float, float]] = []
    for point in plot.front:
        if steps:
            steps.append((scale.x(point.time), steps[-1][1]))
        steps.append((scale.x(point.time), scale.y(point.accuracy)))
    if len(steps) > 1:
        add(svg, strokes.path_of("front", steps))


def _mark(svg: Element, point: Point, scale: _Scale) -> None:
    x, y = scale.x(point.time), scale.y(point.accuracy)
    tip = f"{point.variant}: {percent(point.time)} of the reference's time ({seconds(point.p50_s)}), "
    tip += "the reference itself" if point.variant == REFERENCE else scale.axis.told(point.accuracy)
    group = E("g", E("title", f"{tip}, {point.verdict}"), class_=str(point.verdict))
    low, high = scale.x(point.time_lower), scale.x(point.time_upper)
    if high - low > 1:
        add(group, line("interval", "currentColor", (low, y), (high, y)))
    if point.chosen:
        add(group, hollow("circle", "chosen", cx=x, cy=y, r=10))
    match point.verdict:
        case Verdict.SERVING:
            add(group, E("circle", class_="mark", cx=x, cy=y, r=5))
        case Verdict.ELIGIBLE:
            add(group, hollow("circle", cx=x, cy=y, r=5))
        case Verdict.INCONCLUSIVE:
            add(group, hollow("path", d=f"M{x:g} {y - 6:g} l6 6 l-6 6 l-6 -6 z"))
        case Verdict.REJECTED:
            add(group, hollow("path", d=f"M{x - 5:g} {y - 5:g} l10 10 m0 -10 l-10 10"))
    add(svg, group)


def _name(svg: Element, point: Point, scale: _Scale, taken: list[_Place]) -> None:
    """Beside its mark: right of it where there is room, moved down while another name is in the way."""
    x, y = scale.x(point.time), scale.y(point.accuracy) - 7
    label = point.variant if len(point.variant) <= 40 else point.variant[:39] + "…"
    over = x + 11 + _wide(label) > WIDTH
    at = _free(x - 11 - _wide(label) if over else x + 11, y, label, taken)
    anchor = {"x": x - 11, "text_anchor": "end"} if over else {"x": x + 11}
    add(svg, E("text", E("tspan", label, class_="name"), class_=str(point.verdict), y=at.y, **anchor))


def _free(x: float, y: float, words: str, taken: list[_Place]) -> _Place:
    """The first place from (x, y) downwards where `words` cover none of those already told; now taken as well."""
    place = _Place(x, x + _wide(words), y)
    while any(place.covers(other) for other in taken):
        place = replace(place, y=place.y + _LABEL_STEP)
    taken.append(place)
    return place


def _wide(words: str) -> float:
    """Pixels that `words` take at most, about: their font is the reader's."""
    return _LETTER * len(words)

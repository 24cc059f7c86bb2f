"""The accuracy-latency plot as inline SVG: no script, no font, no picture from elsewhere.

Verdicts differ by shape as well as by colour (disc: serving, ring: eligible, diamond: inconclusive, cross: rejected);
whatever the plot shows is in the table of variants too, and its description says the main thing in words. Colours are
the page's; the attributes here are for a reader that leaves its style sheet out.
"""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element

from gateway.report.markup import E, add
from gateway.report.pareto import Gate, Plot, Point
from gateway.report.units import percent, seconds
from model_store.entities import REFERENCE, Verdict

WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 74, 168, 30, 62
_LABEL_STEP = 15
_SHARES = (0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


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
    name = f"plot-{plot.rows}"
    svg = E(
        "svg", E("title", title(plot), id=f"{name}-title"), E("desc", describe(plot), id=f"{name}-desc"),
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}", width=WIDTH, height=HEIGHT, role="img",
        aria_labelledby=f"{name}-title {name}-desc", font_size=12, font_family="sans-serif", fill="currentColor",
    )  # fmt: skip
    _grid(svg, plot, scale)
    for gate in plot.gates:
        _gate(svg, gate, plot, scale)
    _front(svg, plot, scale)
    taken: list[tuple[float, float]] = []
    for point in plot.points:
        _mark(svg, point, scale)
    for point in sorted(plot.points, key=lambda p: scale.y(p.accuracy)):
        _name(svg, point, scale, taken)
    return svg


def title(plot: Plot) -> str:
    return f"Accuracy against latency at {rows_of(plot.rows)}"


def rows_of(rows: int) -> str:
    return f"{rows} row" + "s" * (rows != 1)


def describe(plot: Plot) -> str:
    """The plot in words."""
    told = [
        f"{p.variant} takes {percent(p.time)} of the reference's time"
        + ("" if p.variant == REFERENCE else f" at {plot.axis.told(p.accuracy)}")
        + (", chosen" if p.chosen else "")
        for p in sorted(plot.points, key=lambda p: p.time)
    ]
    gates = [f"the gate asks {plot.axis.told(gate.accuracy)} of {', '.join(gate.variants)}" for gate in plot.gates]
    return "; ".join((*told, *gates)) + "."


def _grid(svg: Element, plot: Plot, scale: _Scale) -> None:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    last = HEIGHT
    for tick in plot.axis.ticks:
        y = scale.y(tick)
        if scale.low <= plot.axis.place(tick) <= scale.high + 1e-9 and last - y >= 16:
            last = int(y)
            told = plot.axis.told(tick) if tick < plot.axis.most else f"≥ {plot.axis.told(tick)}"
            add(svg, E("line", class_="grid", stroke="#d5d9e0", x1=LEFT, x2=right, y1=y, y2=y))
            add(svg, E("text", told, class_="tick", font_size=11, x=LEFT - 8, y=y + 4, text_anchor="end"))
    for share in _SHARES:
        if scale.left <= math.log2(share) <= scale.right:
            x = scale.x(share)
            add(svg, E("line", class_="grid", stroke="#d5d9e0", x1=x, x2=x, y1=TOP, y2=bottom))
            add(
                svg,
                E("text", f"{100 * share:g} %", class_="tick", font_size=11, x=x, y=bottom + 16, text_anchor="middle"),
            )
            told = seconds(share * plot.reference_p50_s)
            add(svg, E("text", told, class_="tick", font_size=11, x=x, y=bottom + 30, text_anchor="middle"))
    add(svg, E("line", class_="axis", stroke="#565d69", x1=LEFT, x2=right, y1=bottom, y2=bottom))
    add(svg, E("line", class_="axis", stroke="#565d69", x1=LEFT, x2=LEFT, y1=TOP, y2=bottom))
    middle = (LEFT + right) / 2
    words = f"time of {rows_of(plot.rows)}, share of the reference's (median; further left is faster)"
    add(svg, E("text", words, x=middle, y=HEIGHT - 10, text_anchor="middle"))
    half = (TOP + bottom) / 2
    add(svg, E("text", plot.axis.label, transform=f"translate(14 {half:g}) rotate(-90)", text_anchor="middle"))


def _gate(svg: Element, gate: Gate, plot: Plot, scale: _Scale) -> None:
    y, right = scale.y(gate.accuracy), WIDTH - RIGHT
    line = E("line", class_="gate", stroke="#b3261e", stroke_dasharray="6 4", x1=LEFT, x2=right, y1=y, y2=y)
    add(svg, add(line, E("title", f"asked of {', '.join(gate.variants)}")))
    add(
        svg,
        E(
            "text",
            f"gate {plot.axis.told(gate.accuracy)}",
            class_="gate-label",
            font_size=11,
            fill="#b3261e",
            x=LEFT + 6,
            y=y + 13,
        ),
    )


def _front(svg: Element, plot: Plot, scale: _Scale) -> None:
    """As stairs: between two points of the front nothing is known but that the slower one is no worse."""
    steps: list[str] = []
    before: Point | None = None
    for point in plot.front:
        if before is not None:
            steps.append(f"{scale.x(point.time):g},{scale.y(before.accuracy):g}")
        steps.append(f"{scale.x(point.time):g},{scale.y(point.accuracy):g}")
        before = point
    if len(steps) > 1:
        add(svg, E("polyline", class_="front", fill="none", stroke="#565d69", points=" ".join(steps)))


def _mark(svg: Element, point: Point, scale: _Scale) -> None:
    x, y = scale.x(point.time), scale.y(point.accuracy)
    tip = f"{point.variant}: {percent(point.time)} of the reference's time ({seconds(point.p50_s)}), "
    tip += "the reference itself" if point.variant == REFERENCE else scale.axis.told(point.accuracy)
    group = E("g", E("title", f"{tip}, {point.verdict}"), class_=str(point.verdict))
    low, high = scale.x(point.time_lower), scale.x(point.time_upper)
    if high - low > 1:
        add(group, E("line", class_="interval", stroke="currentColor", x1=low, x2=high, y1=y, y2=y))
    if point.chosen:
        add(group, E("circle", class_="chosen", fill="none", stroke="currentColor", stroke_width=2, cx=x, cy=y, r=10))
    match point.verdict:
        case Verdict.SERVING:
            add(group, E("circle", class_="mark", cx=x, cy=y, r=5))
        case Verdict.ELIGIBLE:
            add(
                group, E("circle", class_="hollow", fill="none", stroke="currentColor", stroke_width=2, cx=x, cy=y, r=5)
            )
        case Verdict.INCONCLUSIVE:
            add(
                group,
                E(
                    "path",
                    class_="hollow",
                    fill="none",
                    stroke="currentColor",
                    stroke_width=2,
                    d=f"M{x:g} {y - 6:g} l6 6 l-6 6 l-6 -6 z",
                ),
            )
        case Verdict.REJECTED:
            add(
                group,
                E(
                    "path",
                    class_="hollow",
                    fill="none",
                    stroke="currentColor",
                    stroke_width=2,
                    d=f"M{x - 5:g} {y - 5:g} l10 10 m0 -10 l-10 10",
                ),
            )
    add(svg, group)


def _name(svg: Element, point: Point, scale: _Scale, taken: list[tuple[float, float]]) -> None:
    """Beside its mark, moved down while another name is in the way."""
    x, y = scale.x(point.time) + 11, scale.y(point.accuracy) - 7
    while any(abs(y - other) < _LABEL_STEP and abs(x - at) < 130 for at, other in taken):
        y += _LABEL_STEP
    taken.append((x, y))
    label = point.variant if len(point.variant) <= 40 else point.variant[:39] + "…"
    add(svg, E("text", E("tspan", label, class_="name"), class_=str(point.verdict), x=x, y=y))

"""What a plan was chosen from, drawn: for every setting (threads x instances) the time of a batch and its rows a
second, by the rows of a batch. Both axes are logarithmic, so that equal ratios are equal distances.

Settings differ by dashes and by the shape of their marks as well as by colour, and the figures are in a table, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from gateway.report import strokes, units
from gateway.report.markup import E, add
from gateway.report.strokes import GRID, line, tick
from gateway.report.variant_table import plain, wide
from model_store.entities import Plan, PlanPoint

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 42
COLOURS = ("one", "two", "three", "four", "five")
DASHES = (None, "7 3", "2 3", "9 3 2 3", "5 2")
_DIGITS = ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0,))

Place = tuple[float, float]
Curves = Mapping[tuple[int, int], Sequence[PlanPoint]]
"""(threads, instances) -> its points by rows; the setting that is used first."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the two pictures: what of a point it shows, and how figures on its axis are told."""

    key: str
    title: str
    value: Callable[[PlanPoint], float]
    told: Callable[[float], str]


PANELS = (
    Panel("time", "Median time of a batch", lambda point: point.p50_s, units.seconds),
    Panel("rate", "Rows a second, all instances together", lambda point: point.rows_per_s, units.count),
)


def curves(plan: Plan) -> Curves:
    found: dict[tuple[int, int], list[PlanPoint]] = {(plan.threads, plan.instances): []}
    for point in sorted(plan.curve, key=lambda point: point.rows):
        if point.p50_s > 0 and point.rows_per_s > 0:
            found.setdefault((point.threads, point.instances), []).append(point)
    return {setting: points for setting, points in found.items() if points}


def setting_words(threads: int, instances: int) -> str:
    each = f"{threads} thread" + "s" * (threads != 1)
    return each if instances == 1 else f"{instances} instances of {each}"


def figure(variant: str, plan: Plan, number: int) -> Iterable[Element]:
    """Two pictures, their key, and the figures; only the figures where there is but one batch size."""
    found = curves(plan)
    if len({point.rows for points in found.values() for point in points}) > 1:
        panels = E("div", *(_draw(panel, variant, found, plan, number) for panel in PANELS), class_="panels")
        yield E("figure", panels, _key(found, plan), E("figcaption", _caption(plan)))
    rows = [
        (setting_words(*setting), f"{point.rows}", units.seconds(point.p50_s), units.count(point.rows_per_s))
        for setting, points in found.items()
        for point in points
    ]
    columns = ("Setting", "#Rows", "#Median of a batch", "#Rows a second")
    table = plain(f"{variant}: what was measured under every setting", columns, rows)
    yield E("details", E("summary", f"figures of {variant}"), wide(table, f"Figures of {variant}"))


def describe(panel: Panel, found: Curves) -> str:
    """A picture in words: every line by its ends."""
    told = []
    for setting, points in found.items():
        ends = dict.fromkeys((points[0], points[-1]))
        figures = " to ".join(f"{panel.told(panel.value(point))} at {units.rows(point.rows)}" for point in ends)
        told.append(f"{setting_words(*setting)}: {figures}")
    return "; ".join(told) + "."


def _caption(plan: Plan) -> str:
    told = f"In use: {setting_words(plan.threads, plan.instances)}, the thick line."
    if plan.buckets:
        told += f" The dashed line: batches gather up to {units.rows(plan.buckets[-1])}"
        measured = any(point.rows > plan.buckets[-1] for point in plan.curve)
        told += "; more at a time did not pay." if measured else ", the most that were measured."
    return told


def _draw(panel: Panel, variant: str, found: Curves, plan: Plan, number: int) -> Element:
    title = f"{panel.title} of {variant}, by rows of a batch"
    svg = strokes.picture(f"curve-{number}-{panel.key}", title, describe(panel, found), WIDTH, HEIGHT)
    points = [point for each in found.values() for point in each]
    rows = sorted({point.rows for point in points})
    across = _scale([float(row) for row in rows], LEFT, WIDTH - RIGHT - 8)
    values = [panel.value(point) for point in points]
    up = _scale([min(values) / 1.1, max(values) * 1.1], HEIGHT - BOTTOM, TOP)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for level in levels(min(values) / 1.1, max(values) * 1.1):
        y = up(level)
        add(svg, line("grid", GRID, (LEFT, y), (right, y)), tick(panel.told(level), LEFT - 6, y + 4, "end"))
    last = 0.0
    for row in rows:
        x = across(row)
        if x - last >= 18:
            last = x
            add(svg, tick(str(row), x, bottom + 15))
    strokes.frame(svg, LEFT, right, TOP, bottom)
    add(svg, E("text", panel.title, x=6, y=16))
    add(svg, E("text", "rows of a batch", x=(LEFT + right) / 2, y=HEIGHT - 8, text_anchor="middle"))
    if plan.buckets and rows[0] <= plan.buckets[-1] <= rows[-1]:
        x = across(plan.buckets[-1])
        add(svg, line("limit", strokes.INK, (x, TOP), (x, bottom), stroke_dasharray="6 4"))
    for at, (setting, line_points) in reversed(list(enumerate(found.items()))):
        places = [(across(point.rows), up(panel.value(point))) for point in line_points]
        group = E("g", E("title", setting_words(*setting)), class_=f"line {_colour(at)}")
        add(group, _stroke(places, at, used=at == 0), *(_mark(place, at) for place in places))
        add(svg, group)
    return svg


def levels(least: float, most: float) -> list[float]:
    """Round figures between the two, at most seven: as many of every power of ten as that allows."""
    for digits in _DIGITS:
        powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
        found = [digit * 10.0**power for power in powers for digit in digits]
        found = [level for level in found if least <= level <= most]
        if len(found) <= 7:
            break
    return found[:: max(1, math.ceil(len(found) / 7))]


def _scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = math.log2(min(values)), math.log2(max(values))
    span = (high - low) or 1.0
    return lambda value: round(start + (math.log2(value) - low) / span * (end - start), 1)


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _stroke(places: list[Place], at: int, *, used: bool) -> Element:
    return strokes.path_of("used" if used else "other", places, stroke_dasharray=DASHES[at % len(DASHES)] or "none")


def _mark(place: Place, at: int) -> Element:
    x, y = place
    match at % len(COLOURS):
        case 0:
            return E("circle", cx=x, cy=y, r=3.5)
        case 1:
            return E("rect", x=x - 3, y=y - 3, width=6, height=6)
        case 2:
            return E("path", d=f"M{x:g} {y - 4.5:g} l4.5 4.5 l-4.5 4.5 l-4.5 -4.5 z")
        case 3:
            return E("path", d=f"M{x:g} {y - 4:g} l4.5 7.5 l-9 0 z")
        case _:
            return E("path", d=f"M{x:g} {y + 4:g} l4.5 -7.5 l-9 0 z")


def _key(found: Curves, plan: Plan) -> Element:
    """Which line is which setting."""
    key = E("ul", class_="key")
    for at, setting in enumerate(found):
        swatch = E("svg", viewBox="0 0 34 12", width=34, height=12, aria_hidden="true", fill="currentColor")
        group = E("g", _stroke([(1, 6), (33, 6)], at, used=at == 0), _mark((17, 6), at), class_=f"line {_colour(at)}")
        used = " (in use)" if setting == (plan.threads, plan.instances) else ""
        add(key, E("li", add(swatch, group), f" {setting_words(*setting)}{used}"))
    return key

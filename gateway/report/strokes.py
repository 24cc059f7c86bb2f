"""What every plot of a card is drawn with: lines, ticks and marks of inline SVG.

Colours are the page's, by class; the attributes here are for a reader that leaves its style sheet out.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from gateway.report.markup import E, add

GRID, INK, GATE = "#d5d9e0", "#565d69", "#b3261e"


def picture(name: str, title: str, words: str, width: int, height: int) -> Element:
    """An empty plot that is heard as its title and its content in words; `name` is unique on its page."""
    return E(
        "svg", E("title", title, id=f"{name}-title"), E("desc", words, id=f"{name}-desc"),
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", width=width, height=height, role="img",
        aria_labelledby=f"{name}-title {name}-desc", font_size=12, font_family="sans-serif", fill="currentColor",
    )  # fmt: skip


def line(kind: str, colour: str, start: tuple[float, float], end: tuple[float, float], **more: str) -> Element:
    (x1, y1), (x2, y2) = start, end
    return E("line", class_=kind, stroke=colour, x1=x1, x2=x2, y1=y1, y2=y2, **more)


def path_of(kind: str, places: list[tuple[float, float]], **more: str) -> Element:
    """A line through all `places`."""
    points = " ".join(f"{x:g},{y:g}" for x, y in places)
    return E("polyline", class_=kind, fill="none", stroke=INK, points=points, **more)


def tick(words: str, x: float, y: float, anchor: str = "middle") -> Element:
    return E("text", words, class_="tick", font_size=11, x=x, y=y, text_anchor=anchor)


def hollow(tag: str, kind: str = "hollow", **place: str | float) -> Element:
    """A mark of which only the outline is drawn."""
    return E(tag, class_=kind, fill="none", stroke="currentColor", stroke_width=2, **place)


def frame(svg: Element, left: float, right: float, top: float, bottom: float) -> None:
    """The two axes."""
    add(svg, line("axis", INK, (left, bottom), (right, bottom)), line("axis", INK, (left, top), (left, bottom)))

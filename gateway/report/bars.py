"""Shares and sensitivities as small bars of inline SVG, each with its words beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from gateway.report.markup import E, add
from gateway.report.units import percent

WIDTH, HEIGHT = 260, 14
COLOURS = {"f32": "one", "bf16": "three", "f16": "three", "int8": "two", "int8-weights": "four", "int4-weights": "four"}


def share_words(shares: Mapping[str, float]) -> str:
    """int8 99.1 %, f32 0.9 %: the largest first."""
    return ", ".join(f"{name} {_share(share)}" for name, share in _largest_first(shares))


def _share(share: float) -> str:
    """A little is not nothing, and nearly everything not all."""
    if 0 < share < 5e-4:
        return "below 0.1 %"
    return "over 99.9 %" if 1 - 5e-4 < share < 1 else percent(share)


def share_bar(shares: Mapping[str, float], of: str) -> Element:
    svg = _bar(f"Precision of the multiply-accumulates of {of}: {share_words(shares)}")
    at = 0.0
    for name, share in _largest_first(shares):
        colour = COLOURS.get(name, "five")
        width = share * WIDTH
        rect = E("rect", E("title", f"{name} {_share(share)}"), class_=colour, x=round(at, 2), y=0, height=HEIGHT)
        rect.set("width", f"{max(0.0, width):.2f}")
        add(svg, rect)
        at += width
    return svg


def level_bar(value: float, most: float, words: str) -> Element:
    svg = _bar(words)
    add(svg, E("rect", class_="one", x=0, y=2, width=round(max(0.0, value) / max(most, 1e-9) * WIDTH, 2), height=10))
    return svg


def _bar(words: str) -> Element:
    return E(
        "svg", E("title", words), xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH, height=HEIGHT, role="img", aria_label=words,
    )  # fmt: skip


def _largest_first(shares: Mapping[str, float]) -> Sequence[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])

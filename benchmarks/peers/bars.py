"""A plot of groups of horizontal bars with their spread, as SVG text: no drawing library is needed for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.figures import Spread

WIDTH, LABEL, BAR, GAP, HEAD = 860, 190, 18, 5, 40
_ROOM = WIDTH - LABEL - 170
FONT = 'font-family="sans-serif" font-size="12"'


@dataclass(frozen=True)
class Bar:
    """`value`: where it ends, with its spread; `own`: drawn in the colour of what the plot is about."""

    label: str
    value: Spread
    own: bool = False


@dataclass(frozen=True)
class Group:
    """Bars on one scale of their own, from zero to the greatest."""

    title: str
    unit: str
    bars: Sequence[Bar]


def svg(groups: Sequence[Group]) -> str:
    parts, top = [], 10
    for group in groups:
        parts += _group(group, top)
        top += HEAD + len(group.bars) * (BAR + GAP) + 10
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top}" fill="white"/>', *parts, "</svg>", ""])


def _group(group: Group, top: int) -> list[str]:
    scale = _ROOM / max([bar.value.greatest for bar in group.bars] + [1e-12])
    parts = [f'<text x="10" y="{top + 22}" {FONT} font-weight="bold">{escape(group.title)}</text>']
    for place, bar in enumerate(group.bars):
        y = top + HEAD + place * (BAR + GAP)
        end, low, high = (LABEL + value * scale for value in (bar.value.median, bar.value.least, bar.value.greatest))
        colour = "#1f6fb2" if bar.own else "#b0b7bf"
        middle = y + BAR / 2
        said = f"{number(bar.value.median)} {group.unit}"
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 13}" {FONT} text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{end - LABEL:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="black" stroke-width="1.5"/>',
            f'<text x="{max(end, high) + 6:.1f}" y="{y + 13}" {FONT}>{escape(said)}</text>',
        ]
    return parts


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"

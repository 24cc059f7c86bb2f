"""Figures as people read them, always with their unit."""

from __future__ import annotations

import math
import time

NONE = "-"
"""What is shown where nothing was measured."""


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def size(value: float | None) -> str:
    """Bytes, in powers of 1024."""
    if value is None:
        return NONE
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def count(value: float | None, unit: str = "") -> str:
    """25.6 M, 4.09 G: three figures."""
    if value is None:
        return NONE
    for scale, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}{unit}"
    return f"{value:.0f}{' ' if unit else ''}{unit}"


def percent(share: float | None, places: int = 1) -> str:
    return NONE if share is None else f"{100 * share:.{places}f} %"


def rows(number: int) -> str:
    return f"{number} row" + "s" * (number != 1)


def times(value: float | None, *, up: bool = False) -> str:
    """A ratio, rounded down (an upper end: up) as in the reasons of variants: no more is claimed than was measured."""
    if value is None:
        return NONE
    return f"{(math.ceil(100 * value - 1e-6) if up else math.floor(100 * value + 1e-6)) / 100:.2f}x"


def moment(posix: float) -> str:
    """In UTC, to the second: a card is read far from where it was made."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(posix))

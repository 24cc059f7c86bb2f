"""Distributions, and their text form for Prometheus.

Not the stock client's children, because the hot path would pay a microsecond for each of a dozen observations and a
scrape 100 ns for each of a hundred thousand samples: here an observation is a list index and an addition, and a
scrape writes prepared prefixes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
Labels = tuple[tuple[str, str], ...]


class Distribution:
    """A histogram over integers in units of 1/`scale`; `bounds` are upper bounds in those units, inclusive."""

    __slots__ = ("bounds", "counts", "scale", "total")

    def __init__(self, bounds: Sequence[float], scale: float) -> None:
        self.bounds = tuple(int(bound * scale) for bound in bounds)
        self.scale = scale
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def merge(self, other: Distribution) -> None:
        """Add all of `other`, which has the same bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    @property
    def count(self) -> int:
        return sum(self.counts)

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """Sample lines. `labels`: the label pairs without braces."""
        running = 0
        comma = "," if labels else ""
        for bound, count in zip(self.bounds, self.counts, strict=False):
            running += count
            yield f'{name}_bucket{{{labels}{comma}le="{bound / self.scale}"}} {running}'
        running += self.counts[-1]
        yield f'{name}_bucket{{{labels}{comma}le="+Inf"}} {running}'
        yield f"{name}_sum{{{labels}}} {self.total / self.scale}"
        yield f"{name}_count{{{labels}}} {running}"


def seconds() -> Distribution:
    """A histogram of durations, fed with nanoseconds."""
    return Distribution(SECONDS, 1e9)


def rows() -> Distribution:
    return Distribution(ROWS, 1.0)


def label_pairs(labels: Labels) -> str:
    """`a="x",b="y"` with values escaped as the text format demands."""
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels)


def head(name: str, kind: str, words: str) -> str:
    return f"# HELP {name} {words}\n# TYPE {name} {kind}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

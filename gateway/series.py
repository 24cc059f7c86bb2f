"""Distributions, and their text form for Prometheus.

Not the stock client's children, because the hot path would pay a microsecond for each of a dozen observations and a
scrape 100 ns for each of a hundred thousand samples: here an observation is a list index and an addition, and a
scrape writes prepared prefixes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, MutableSequence, Sequence

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_NOTHING = -(2**63)


class Distribution:
    """A histogram over integers in units of 1/`scale`; `bounds` are upper bounds in those units, inclusive.

    `cells` keep it: the sum of all, how many up to each bound, how many beyond the last one.
    """

    __slots__ = ("_edges", "bounds", "cells", "scale")

    def __init__(self, bounds: Sequence[float], scale: float, cells: MutableSequence[int] | None = None) -> None:
        self.bounds = tuple(int(bound * scale) for bound in bounds)
        self._edges = (_NOTHING, *self.bounds)  # so that what is found is the cell: the first one holds the sum
        self.scale = scale
        self.cells: MutableSequence[int] = [0] * (len(bounds) + 2) if cells is None else cells

    def add(self, value: int, times: int = 1) -> None:
        cells = self.cells
        cells[bisect_left(self._edges, value)] += times
        cells[0] += value * times

    def merge(self, other: Distribution) -> None:
        """Add all of `other`, which has the same bounds."""
        for nth, figure in enumerate(other.cells):
            self.cells[nth] += figure

    @property
    def counts(self) -> Sequence[int]:
        """How many, interval by interval."""
        return self.cells[1:]

    @property
    def total(self) -> int:
        return self.cells[0]

    @property
    def count(self) -> int:
        return sum(self.counts)

    def lines(self, name: str, labels: str) -> Iterable[str]:
        """Sample lines. `labels`: the label pairs without braces."""
        running, counts = 0, self.counts
        comma = "," if labels else ""
        for bound, count in zip(self.bounds, counts, strict=False):
            running += count
            yield f'{name}_bucket{{{labels}{comma}le="{bound / self.scale}"}} {running}'
        running += counts[-1]
        yield f'{name}_bucket{{{labels}{comma}le="+Inf"}} {running}'
        yield f"{name}_sum{{{labels}}} {self.total / self.scale}"
        yield f"{name}_count{{{labels}}} {running}"


SECONDS_CELLS = len(SECONDS) + 2


def seconds(cells: MutableSequence[int] | None = None) -> Distribution:
    """A histogram of durations, fed with nanoseconds. `cells`: where it is kept, `SECONDS_CELLS` of them."""
    return Distribution(SECONDS, 1e9, cells)


def rows() -> Distribution:
    return Distribution(ROWS, 1.0)


def pairs(**labels: str) -> str:
    """`a="x",b="y"` with values escaped as the text format demands."""
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())


def head(name: str, kind: str, words: str) -> str:
    return f"# HELP {name} {words}\n# TYPE {name} {kind}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

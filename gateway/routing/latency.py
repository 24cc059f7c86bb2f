"""What the runs of one session take, as seen while serving: by rows and by shape, alone and beside others.

A figure is the median of the last runs alike: no single pause moves it, and a lasting change does within a few runs.
The first runs of a kind do not count, since runtimes prepare themselves for a new shape then. Runs that shared their
device with another runner of it are figures of their own: they say what sharing costs.
"""

from __future__ import annotations

from collections import deque

START_UP = 2
"""Runs of a kind that do not count."""

RECENT = 15
"""Runs of a kind that make its figure."""

ENOUGH = 5
"""Runs without which a figure decides nothing."""

UNKNOWN_RUN_S = 1.0
"""What a run is taken to cost while none has been seen."""


class Figure:
    """The median of the last values; computed when asked for."""

    __slots__ = ("_recent", "_seen", "_typical")

    def __init__(self, recent: int = RECENT) -> None:
        self._recent: deque[float] = deque(maxlen=recent)
        self._seen = 0
        self._typical: float | None = None

    def add(self, value: float) -> None:
        self._seen += 1
        if self._seen > START_UP:
            self._recent.append(value)
            self._typical = None

    @property
    def count(self) -> int:
        """Values that count."""
        return len(self._recent)

    @property
    def typical(self) -> float | None:
        """None: there is no value yet."""
        if self._typical is None and self._recent:
            ordered = sorted(self._recent)  # `statistics.median` takes several times as long
            half = len(ordered) // 2
            self._typical = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
        return self._typical


class Latency:
    """Seconds a row of a run costs. Kinds of runs: rows and bytes of a row, both by powers of two; alone or not."""

    __slots__ = ("_figures", "_last", "_start", "last_rows")

    def __init__(self) -> None:
        self._figures: dict[int, Figure] = {}
        self._last: Figure | None = None
        self.last_rows = 1
        """Rows of the run that `row_s` is of."""
        self._start: float | None = None
        """Seconds a row cost in a run before any figure: a warm-up, or a first run."""

    def start(self, row_s: float | None) -> None:
        """What a warm-up run of one row took, if there was one."""
        self._start = self._start or row_s

    def add(self, rows: int, row_bytes: int, seconds: float, crowded: bool = False) -> None:
        """A run took `seconds`; `crowded`: another runner was running on its device."""
        key = _kind(rows, row_bytes, crowded)
        figure = self._figures.get(key)
        if figure is None:
            figure = self._figures[key] = Figure()
        figure.add(seconds / rows)
        if self._start is None:
            self._start = seconds / rows
        if figure.count:
            self._last, self.last_rows = figure, rows

    def figure(self, rows: int, row_bytes: int, crowded: bool = False) -> Figure | None:
        """Seconds per row of such runs."""
        return self._figures.get(_kind(rows, row_bytes, crowded))

    @property
    def row_s(self) -> float | None:
        """Seconds a row costs, as last seen; None: never ran."""
        return self._start if self._last is None else self._last.typical

    def expected_s(self, rows: int, row_bytes: int) -> float:
        """Seconds of such a run: as such runs took, else as the last ones did."""
        figure = self._figures.get(_kind(rows, row_bytes, False))
        row_s = None if figure is None else figure.typical
        row_s = self.row_s if row_s is None else row_s
        return UNKNOWN_RUN_S if row_s is None else row_s * rows


def _kind(rows: int, row_bytes: int, crowded: bool) -> int:
    return ((rows - 1).bit_length() << 8) | (row_bytes.bit_length() << 1) | crowded

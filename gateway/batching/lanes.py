"""The lines of one version: a lane for each kind of request that may run together, and whose turn it is among them.

Requests with the same pin and the same trailing shapes wait in one lane. Lower priority levels go first
(line.py); lanes whose heads are of one level take turns. Nobody starves: after `MOST_OVERTAKINGS` batches in a
row that left an older request behind, the oldest one leads a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.batching.batch import Item
from gateway.batching.line import Line

Lane = tuple[Any, ...]
MOST_OVERTAKINGS = 8


class Lanes:
    """Bool and length: of the requests that wait, the dead ones that were not met yet included."""

    __slots__ = ("_lines", "_overtakings", "rows")

    def __init__(self) -> None:
        self._lines: OrderedDict[Lane, Line] = OrderedDict()
        self._overtakings = 0
        self.rows = 0
        """Rows of all that wait. Whoever takes an item out of a line takes its rows off."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Item]:
        for line in self._lines.values():
            yield from line

    def lines(self) -> list[Line]:
        return list(self._lines.values())

    def put(self, item: Item, front: bool = False) -> None:
        lane: Lane = (item.pin, item.avoid) if item.alone else (item.pin, item.avoid, item.key)
        line = self._lines.get(lane)
        if line is None:
            line = self._lines[lane] = Line()
        line.put(item, front)
        self.rows += item.rows

    def drop_dead(self) -> None:
        """Forget those at the front of every line that nobody waits for any more."""
        for lane, line in list(self._lines.items()):
            self.rows -= line.drop_dead()
            if not line:
                del self._lines[lane]

    def clear(self) -> None:
        self._lines.clear()
        self.rows = 0

    def in_turn(self) -> list[tuple[Lane, Line]]:
        """By the levels of their heads, those of one level in turn; the longest wait first when that was put off too
        often."""
        lines = list(self._lines.items())
        if len(lines) < 2:
            return lines
        if self._overtakings >= MOST_OVERTAKINGS:
            return sorted(lines, key=lambda one: one[1].oldest().queued_ns)
        return sorted(lines, key=lambda one: one[1].head().level)

    def head(self, line: Line) -> Item:
        """Who leads the next batch of `line`."""
        return line.oldest() if self._overtakings >= MOST_OVERTAKINGS else line.head()

    def alike(self, line: Line) -> int:
        """Rows that wait in `line`."""
        return self.rows if len(self._lines) == 1 else sum(item.rows for item in line)

    def back(self, items: Sequence[Item]) -> None:
        """What was taken and is not sent waits on, where it was."""
        for item in reversed(items):
            self.put(item, front=True)

    def left(self, lane: Lane, items: Sequence[Item]) -> None:
        """A batch of `items` leaves `lane`: the others are next, and whoever was overtaken is counted."""
        line = self._lines[lane]
        if line:
            self._lines.move_to_end(lane)
        else:
            del self._lines[lane]
        if items:
            first_ns = items[0].queued_ns
            overtook = [line for line in self._lines.values() if line.oldest().queued_ns < first_ns]
            self._overtakings = self._overtakings + 1 if overtook else 0

"""Requests that wait and may run together, in the order of Triton's schedule policy.

A request has a priority level: 1 is the highest, and 0 stands for the default level. A lower number goes first; within
one level the first to come is the first to go. (Triton core, `infer_request.h` and docs/protocol/
extension_schedule_policy.md; there the levels are set per model, here every model has the same.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from gateway.batching.batch import Item

DEFAULT_LEVEL = 100
"""Where requests without a priority stand: there is room before them and behind them."""

LAST_LEVEL = 255
"""Levels beyond this one count as this one: what a client may choose must not make the queue slow."""


def level_of(priority: int) -> int:
    """The level of a request's `priority` parameter."""
    return min(priority, LAST_LEVEL) if priority > 0 else DEFAULT_LEVEL


class Line:
    """A queue per level. Every method but the iteration and `drop_dead` of a long line costs the same however long."""

    __slots__ = ("_best", "_levels")

    def __init__(self) -> None:
        self._levels: dict[int, deque[Item]] = {}
        self._best: deque[Item] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def __bool__(self) -> bool:
        return bool(self._levels)

    def __iter__(self) -> Iterator[Item]:
        for level in sorted(self._levels):
            yield from self._levels[level]

    @property
    def mixed(self) -> bool:
        """Whether requests of more than one level wait."""
        return len(self._levels) > 1

    def put(self, item: Item, front: bool = False) -> None:
        """Behind those of its level; `front`: before them."""
        waiting = self._levels.get(item.level)
        if waiting is None:
            waiting = self._levels[item.level] = deque()
            self._best = self._levels[min(self._levels)]
        if front:
            waiting.appendleft(item)
        else:
            waiting.append(item)

    def head(self, level: int | None = None) -> Item:
        """Whose turn it is (in `level`, if given and anybody waits there). The line must not be empty."""
        return self._waiting(level)[0]

    def oldest(self) -> Item:
        """Who has waited longest, whatever its level. The line must not be empty."""
        if len(self._levels) == 1:
            return self._best[0]
        return min((waiting[0] for waiting in self._levels.values()), key=lambda item: item.queued_ns)

    def take(self, level: int | None = None) -> Item:
        """Remove `head(level)`."""
        waiting = self._waiting(level)
        item = waiting.popleft()
        if not waiting:
            del self._levels[item.level]
            if self._levels:
                self._best = self._levels[min(self._levels)]
        return item

    def drop_dead(self) -> int:
        """Remove those at the front of each level that nobody waits for any more; the rows they had."""
        rows = 0
        for level, waiting in list(self._levels.items()):
            while waiting and waiting[0].answer.done():
                rows += self.take(level).rows
        return rows

    def _waiting(self, level: int | None) -> deque[Item]:
        return self._best if level is None else self._levels.get(level, self._best)

"""Whose turn it is among the versions with waiting requests: whoever has had the least time in runners.

Turns are counted in seconds of runs, not in batches: a version whose batches take fifty milliseconds gets as much time
as one whose batches take one, and the quick one does not wait fifty times as long. A batch is charged with what it is
expected to take when it is sent, and with the difference when it is back. Who comes anew begins where the others are:
nobody saves time up while idle, and nobody pays for what it had while it was alone. (Start-time fair queueing: Goyal,
Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar


class Queue(Protocol):
    """The waiting requests of one version (batcher.py)."""

    served_s: float
    """Seconds of runs it has been charged with, and what it was put forward by when it came anew."""

    @property
    def empty(self) -> bool: ...

    def dispatch(self) -> bool:
        """Send one batch, if one can be sent now."""
        ...


Q = TypeVar("Q", bound=Queue)


class Turns(Generic[Q]):
    """The queues that wait. Its work is per batch, not per request: `join` of one that waits already is a look-up."""

    def __init__(self) -> None:
        self.waiting: dict[Q, None] = {}
        """The queues that wait. Whoever asks for every request looks here itself."""
        self._now_s = 0.0
        """What the queue whose turn it was last had been charged with then."""

    def __len__(self) -> int:
        return len(self.waiting)

    def __iter__(self) -> Iterator[Q]:
        return iter(tuple(self.waiting))

    def join(self, queue: Q) -> None:
        if queue not in self.waiting:
            self.waiting[queue] = None
            queue.served_s = max(queue.served_s, self._now_s)

    def leave_if_empty(self, queue: Q) -> None:
        if queue.empty:
            self.waiting.pop(queue, None)

    def hand_out(self, room: Callable[[], bool]) -> None:
        """Send batches until nothing moves or there is no `room` in any runner."""
        if len(self.waiting) == 1:
            (queue,) = self.waiting
            self._now_s = max(self._now_s, queue.served_s)
            while room() and queue.dispatch() and not queue.empty:
                pass
            self.leave_if_empty(queue)
            return
        turns = [(queue.served_s, nth, queue) for nth, queue in enumerate(self.waiting)]
        heapify(turns)
        while turns and room():
            served_s, nth, queue = heappop(turns)
            if queue.dispatch():
                self._now_s = max(self._now_s, served_s)
                if not queue.empty:
                    heappush(turns, (queue.served_s, nth, queue))
            self.leave_if_empty(queue)

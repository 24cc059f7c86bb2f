"""Which batches of a runner run at the same time: one rule, for the runner that keeps it and the gateway that blames.

Batches begin in the order in which they came, and n of them run together only while every one allows n instances: a
session that was planned to have all cores for one batch never shares them, sessions planned for two at a time do. So
those that run are always the oldest.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Iterable


def together(instances: Iterable[int]) -> int:
    """How many of these batches run at once. Each is given by the instances of its session, oldest first."""
    count, least = 0, None
    for allowed in instances:
        least = allowed if least is None else min(least, allowed)
        if count >= least:
            break
        count += 1
    return count


class Gate:
    """Lets batches begin by that rule. One thread at a time may enter or wait; whoever entered must leave."""

    def __init__(self) -> None:
        self._running: list[int] = []
        """Its changes are single operations of a list, so that nobody needs a lock where nobody waits."""
        self._changed = threading.Condition(threading.Lock())
        self._waiting = False

    def idle(self) -> bool:
        return not self._running

    def enter(self, instances: int) -> None:
        """Wait until a batch of a session with that many instances may begin."""
        if self._running:
            self._wait(lambda: not self._running or len(self._running) < min((instances, *self._running)))
        self._running.append(instances)

    def leave(self, instances: int) -> None:
        self._running.remove(instances)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def wait_idle(self) -> None:
        """Wait until nothing runs. Only for the thread that alone may enter."""
        if self._running:
            self._wait(self.idle)

    def _wait(self, until: Callable[[], bool]) -> None:
        with self._changed:
            self._waiting = True  # before the look: whoever leaves after it sees this, and gives notice
            self._changed.wait_for(until)
            self._waiting = False


class Crew:
    """The threads that run batches: `work` is what each does until there is no more. The caller's thread is the first.

    They never end by themselves: one that waits costs nothing.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.size = 1

    def grow(self, size: int) -> None:
        """See to it that there are `size` threads at least. Not to be called by two threads at once."""
        for number in range(self.size, size):
            threading.Thread(target=self._until_the_end, daemon=True, name=f"instance-{number}").start()
        self.size = max(self.size, size)

    def _until_the_end(self) -> None:
        """An error that no batch explains ends the process, as it does on the first thread."""
        try:
            self._work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

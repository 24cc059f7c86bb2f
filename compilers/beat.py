"""A beat on every core that a compile child shares with serving: a thread that wakes for nothing, many times a second.

Whoever serves takes the core from a child in idle class when it wakes, but not always. The kernel counts who had how
much (EEVDF); one who is a few microseconds ahead when it wakes, or when somebody else's turn ends, has to wait until
the idle thread has caught up. That takes the idle thread microseconds, but the kernel looks again only when something
happens on that core, and what happens there at the latest is its tick: after 4 ms, where it ticks 250 times a second.
Seen in a trace of tiny requests (8 connections, two cores, an idle-class thread on each): 2 % of all waits for a core
lasted 1.2 to 9 ms, an idle thread having the core all that time. A thread that wakes is something that happens.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection

PERIOD_S = 0.0005
MOST_A_SECOND = 16_000
"""Of all cores together: on more than eight they come more seldom."""


class Beat:
    """Silent at first. `stop` it in the end."""

    def __init__(self) -> None:
        self.cores: tuple[int, ...] = ()
        self._over = threading.Event()

    def on(self, cores: Collection[int]) -> None:
        """From now on beat on these cores and no others."""
        if tuple(cores) == self.cores:
            return
        self.stop()
        self.cores, self._over = tuple(cores), threading.Event()
        period_s = max(PERIOD_S, len(self.cores) / MOST_A_SECOND)
        for core in self.cores:
            threading.Thread(
                target=_beat, args=(core, period_s, self._over), name=f"beat on {core}", daemon=True
            ).start()

    def stop(self) -> None:
        self._over.set()
        self.cores = ()


def _beat(core: int, period_s: float, over: threading.Event) -> None:
    with contextlib.suppress(OSError):  # a core that was taken from us meanwhile: beat somewhere
        os.sched_setaffinity(0, {core})
    while not over.is_set():
        time.sleep(period_s)

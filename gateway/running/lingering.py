"""Waiting on the spot for the answer of a quick batch, when there is nothing else to do.

Going to sleep and being woken takes longer than a small model runs. Whoever comes meanwhile waits for at most
`LINGER_NS`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LINGER_NS, LINGER_RUN_S = 200_000, 0.0001
"""How long an answer is waited for on the spot, and how quick its run must be for that."""

_LONGEST_PAUSE = 256


class Lingering:
    """Whether to wait: after each time it was in vain, twice as many batches go without."""

    __slots__ = ("_last_pause", "_pause")

    def __init__(self) -> None:
        self._pause = self._last_pause = 0

    def worth_it(self, expected_s: float) -> bool:
        """Whether to wait for a run that is expected to take `expected_s`."""
        if self._pause:
            self._pause -= 1
            return False
        return expected_s <= LINGER_RUN_S

    def wait(self, receive: Callable[[], bytes]) -> bytes:
        """What `receive` gives once it gives something; nothing when that took too long."""
        until = time.monotonic_ns() + LINGER_NS
        while time.monotonic_ns() < until:
            if data := receive():
                self._last_pause = 0
                return data
            os.sched_yield()
        self._pause = self._last_pause = min(_LONGEST_PAUSE, 2 * self._last_pause + 1)
        return b""

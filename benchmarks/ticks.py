"""Moments that come evenly, to a few microseconds: a periodic timer of the kernel (timerfd), heard by the event loop.

Timers of the event loop are whole milliseconds here (libuv), and waiting in a loop for the next moment would take a
core from the server that is measured.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_MONOTONIC, _ABSOLUTE = 1, 1
_S_NS = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Period(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


class Ticks:
    """`each(number, moment)` is called for every tick, late ones too, until `stop`: none is left out.

    `moment` is when it was due, in seconds of `time.perf_counter`, which is the kernel's monotonic clock.
    """

    def __init__(self, every_s: float, each: Callable[[int, float], None]) -> None:
        """Raises OSError where there are no such timers."""
        self._every_s = every_s
        self._each = each
        self._told = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def start(self) -> float:
        """The moment of the first tick, one period from now."""
        self._loop = asyncio.get_running_loop()
        first_ns = time.perf_counter_ns() + int(self._every_s * 1e9)
        interval = _Timespec(*divmod(int(self._every_s * 1e9), _S_NS))
        period = _Period(interval, _Timespec(*divmod(first_ns, _S_NS)))
        if self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(period), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        self._first_s = first_ns / 1e9
        self._loop.add_reader(self._fd, self._due)
        return self._first_s

    def stop(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _due(self) -> None:
        for _ in range(int.from_bytes(os.read(self._fd, 8), "little")):
            number = self._told
            self._told += 1
            self._each(number, self._first_s + number * self._every_s)

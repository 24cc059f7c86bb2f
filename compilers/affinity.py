"""Which cores a process keeps to, changed from outside while it runs (man 2 sched_setaffinity, which is per thread).

A thread begins on the cores of the one that made it. So once every thread that can be seen has been moved and none is
new, none is left behind: whoever is made later has a maker that was moved.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path

_MOST_LOOKS = 100
"""A child that never stops making threads is not followed for ever."""


def pin(pid: int, cores: Collection[int]) -> None:
    """Move all threads of a process. One that has ended, or that may not be moved, is let be."""
    _until_none_is_new(lambda: threads(pid), lambda tid: _move(tid, cores))


def pin_group(group: int, cores: Collection[int]) -> None:
    """Move all threads of all processes of a process group."""
    _until_none_is_new(lambda: members(group), lambda pid: pin(pid, cores))


def threads(pid: int) -> set[int]:
    """Of a process; empty when it is gone."""
    try:
        return {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()}
    except OSError:
        return set()


def members(group: int) -> set[int]:
    """The processes of a process group."""
    return {int(each.name) for each in Path("/proc").glob("[0-9]*") if _group(each) == group}


def _group(process: Path) -> int | None:
    try:
        stat = (process / "stat").read_text(errors="replace")
    except OSError:
        return None  # it ended while we looked
    return int(stat.rpartition(")")[2].split()[2])


def _move(tid: int, cores: Collection[int]) -> None:
    with contextlib.suppress(OSError):
        os.sched_setaffinity(tid, cores)


def _until_none_is_new(look: Callable[[], set[int]], move: Callable[[int], None]) -> None:
    moved: set[int] = set()
    for _ in range(_MOST_LOOKS):
        new = look() - moved
        if not new:
            return
        for one in new:
            move(one)
        moved |= new

"""Compiling without hurting whoever is served meanwhile: at which priority, and on which cores, a step's child runs.

Steps that compute in idle class (SCHED_IDLE): they get what serving leaves, and whoever serves takes the core from
them the moment it wakes. From four cores on they also keep to one half of them, so that caches and turbo of the other
half are serving's alone; on fewer, half would be one core, on which a step would take twice as long and hurt as much.

Steps that *time* (measure, plan) keep every core and the ordinary class at the lowest priority: a figure taken on half
of the cores, or in the class that is stopped by anything, would not be true of serving. They are short, and the median
of their quieter rounds is what counts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

TIMED = frozenset(("measure", "plan"))
"""Steps whose answer is a duration."""

LOWEST = 19
LEAST_TO_SHARE = 4


def idle_class(step: str, nice: int) -> bool:
    """Whether the child of a step runs in idle class; only those of lowest priority do."""
    return nice >= LOWEST and step not in TIMED


def cores_for(step: str, nice: int, usable: Sequence[int] | None = None) -> tuple[int, ...] | None:
    """The cores that the child of a step keeps to; None: all of them."""
    cores = sorted(os.sched_getaffinity(0)) if usable is None else sorted(usable)
    if not idle_class(step, nice) or len(cores) < LEAST_TO_SHARE:
        return None
    return tuple(cores[len(cores) // 2 :])

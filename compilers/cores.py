"""Compiling without hurting whoever is served meanwhile: at which priority, and on which cores, a step's child runs.

All of it computes in idle class (SCHED_IDLE): it gets what serving leaves, and whoever serves takes the core from it
the moment it wakes. The nice value alone does not do: with two busy children at nice 19 on two cores the p99 of a
process that answers every millisecond was 20 ms, in idle class 6.5 ms, without them 7.4 ms (median of six windows in
turns). From four cores on they also keep to one half of them, so that caches and turbo of the other half are
serving's alone; on fewer, half would be one core, on which a step would take twice as long and hurt as much.

Steps that *time* (measure, plan) keep every core: a figure taken on half of them would not be true of serving. That
serving interrupts them is what their rounds in turns, and the quieter half of those, are for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

TIMED = frozenset(("measure", "plan"))
"""Steps whose answer is a duration."""

LOWEST = 19
LEAST_TO_SHARE = 4


def idle_class(nice: int) -> bool:
    """Whether children of this priority run in idle class; only those of the lowest do."""
    return nice >= LOWEST


def cores_for(step: str, nice: int, usable: Sequence[int] | None = None) -> tuple[int, ...] | None:
    """The cores that the child of a step keeps to; None: all of them."""
    cores = sorted(os.sched_getaffinity(0)) if usable is None else sorted(usable)
    if step in TIMED or not idle_class(nice) or len(cores) < LEAST_TO_SHARE:
        return None
    return tuple(cores[len(cores) // 2 :])

"""Compiling without hurting whoever is served meanwhile: at which priority, and on which cores, a step's child runs.

All of it computes in idle class (SCHED_IDLE): it gets what serving leaves, and whoever serves takes the core from it
the moment it wakes. The nice value alone does not do: with two busy children at nice 19 on two cores the p99 of a
process that answers every millisecond was 20 ms, in idle class 6.5 ms, without them 7.4 ms (median of six windows in
turns).

The class counts among processes of one session only, where the kernel groups by session (autogroup, man 7 sched). So
nothing here begins one: with two busy children in another session tiny requests, 8 connections on two cores, came to
4,400 a second, with grouping off to 11,100, without children to 11,800 (medians of three or four windows).

Nor does the class alone do. The kernel counts who had how much (EEVDF): one who is a little ahead when it wakes, or
when somebody else's turn ends, waits for the idle thread to catch up. That takes microseconds, but the kernel looks
again at its next tick only, 4 ms later at 250 Hz (a trace of tiny requests, 8 connections on two cores with an idle-
class thread on each: 2 % of all waits for a core took 1.2 to 9 ms). So while requests are answered, half of the cores,
one at least, are left without any child. While none are, children have every core. Where nobody says which it is, half
of four or more is left, and on fewer none: half would be one core, on which a step takes twice as long.

Steps that *time* (measure, plan) keep every core: a figure taken on half of them would not be true of serving. That
serving interrupts them is what their rounds in turns, and the quieter half of those, are for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from compilers.affinity import pin_group
from compilers.traffic import Traffic

TIMED = frozenset(("measure", "plan"))
"""Steps whose answer is a duration."""

LOWEST = 19
LEAST_TO_SHARE = 4


def idle_class(nice: int) -> bool:
    """Whether children of this priority run in idle class; only those of the lowest do."""
    return nice >= LOWEST


def cores_for(
    step: str, nice: int, flows: bool | None = None, usable: Sequence[int] | None = None
) -> tuple[int, ...] | None:
    """The cores that the child of a step keeps to; None: all of them. `flows`: see Traffic."""
    cores = sorted(os.sched_getaffinity(0)) if usable is None else sorted(usable)
    if step in TIMED or not idle_class(nice) or len(cores) == 1 or flows is False:
        return None
    if flows is None and len(cores) < LEAST_TO_SHARE:
        return None
    return tuple(cores[len(cores) // 2 :])


class Tending:
    """Keeps a running child out of the way, as traffic comes and goes. Call it with the child's pid, often."""

    def __init__(self, step: str, nice: int, traffic: Traffic) -> None:
        self._step, self._nice, self._traffic = step, nice, traffic
        self.cores = cores_for(step, nice, traffic.flows)
        """Where it begins, and is now; None: everywhere."""

    def __call__(self, pid: int) -> None:
        cores = cores_for(self._step, self._nice, self._traffic.flows)
        if cores != self.cores:
            self.cores = cores
            pin_group(pid, cores or os.sched_getaffinity(0))

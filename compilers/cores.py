"""Compiling without hurting whoever is served meanwhile: at which priority, and on which cores, a step's child runs.

All of it computes in idle class (SCHED_IDLE): it gets what serving leaves, and whoever serves takes the core from it
the moment it wakes. The nice value alone does not do: with two busy children at nice 19 on two cores the p99 of a
process that answers every millisecond was 20 ms, in idle class 6.5 ms, without them 7.4 ms (median of six windows in
turns).

Nor does the class alone. So while requests are answered, half of the cores, one at least, are left without any child,
and on fewer than four, where serving needs the others too, a beat (compilers/beat.py) sees to it that they are given
up at once. While none are answered, children have every core. Where nobody says which it is, half of four or more is
left, and on fewer none: half would be one core, on which a step takes twice as long.

Steps that *time* (measure, plan) keep every core: a figure taken on half of them would not be true of serving. That
serving interrupts them is what their rounds in turns, and the quieter half of those, are for; both sides of a ratio
live through the same beats.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType

from compilers.affinity import pin_group
from compilers.beat import Beat
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


def beaten(step: str, nice: int, flows: bool | None, usable: Sequence[int] | None = None) -> tuple[int, ...]:
    """The cores that need a beat while the child of a step runs: those that serving cannot do without."""
    cores = tuple(sorted(os.sched_getaffinity(0)) if usable is None else sorted(usable))
    shared = step in TIMED or len(cores) < LEAST_TO_SHARE
    return cores if flows and shared and idle_class(nice) else ()


class Tending:
    """Keeps a running child out of the way, as traffic comes and goes. Call it with the child's pid, often."""

    def __init__(self, step: str, nice: int, traffic: Traffic) -> None:
        self._step, self._nice, self._traffic = step, nice, traffic
        self._beat = Beat()
        self.cores = cores_for(step, nice, traffic.flows)
        """Where it begins, and is now; None: everywhere."""

    def __call__(self, pid: int) -> None:
        flows = self._traffic.flows
        cores = cores_for(self._step, self._nice, flows)
        if cores != self.cores:
            self.cores = cores
            pin_group(pid, cores or os.sched_getaffinity(0))
        self._beat.on(beaten(self._step, self._nice, flows))

    def __enter__(self) -> Tending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beat.stop()

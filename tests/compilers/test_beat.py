"""The beat: threads of this process that wake on the cores they are told, and on no others."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from compilers.beat import Beat
from tests.compilers.compiling import wait_until

CORES = tuple(sorted(os.sched_getaffinity(0)))


@pytest.fixture
def beat():
    made = Beat()
    yield made
    made.stop()
    wait_until(lambda: not beating(), 5)


def beating() -> dict[int, set[int]]:
    """Threads that beat, and where they may."""
    found = {}
    for thread in threading.enumerate():
        if thread.name.startswith("beat on") and thread.native_id is not None:
            try:
                found[thread.native_id] = os.sched_getaffinity(thread.native_id)
            except ProcessLookupError:
                continue
    return found


def wakings(tid: int) -> int:
    """How often a thread gave up its core to wait (man 5 proc, voluntary_ctxt_switches)."""
    for line in Path(f"/proc/self/task/{tid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    raise AssertionError("the kernel does not count")


def test_every_core_has_a_beat_of_its_own_and_this_thread_stays_where_it_was(beat):
    beat.on(CORES)
    wait_until(lambda: sorted(map(sorted, beating().values())) == [[core] for core in CORES], 5)
    assert os.sched_getaffinity(0) == set(CORES)


def test_it_goes_on_until_it_is_told_otherwise(beat):
    beat.on(CORES[:1])
    wait_until(lambda: list(beating().values()) == [{CORES[0]}], 5)
    (tid,) = beating()
    begun = wakings(tid)
    wait_until(lambda: wakings(tid) > begun + 100, 20)
    beat.on(CORES[:1])
    assert set(beating()) == {tid}
    beat.on(())
    wait_until(lambda: not beating(), 5)

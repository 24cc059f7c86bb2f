"""Moving a running child, with all its threads and processes, from one set of cores to another: real children."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from compilers.affinity import members, pin_group, threads
from compilers.cores import Tending
from compilers.traffic import Traffic
from model_store.sandbox import GIB, Limits, run_confined
from tests.compilers.compiling import wait_until

EVERY = frozenset(os.sched_getaffinity(0))
LAST = frozenset(sorted(EVERY)[len(EVERY) // 2 :])
"""What a child has left while requests flow."""

RESTLESS = textwrap.dedent("""
    import subprocess, sys, threading, time
    def live():
        while True:
            thread = threading.Thread(target=time.sleep, args=(0.002,))
            thread.start()
            thread.join()
    for _ in range(4):
        threading.Thread(target=live).start()
    if sys.argv[1:] != ["alone"]:
        other = subprocess.Popen([sys.executable, __file__, "alone"])
    live()
""")
"""Threads that make threads all the time, and a second process that does too."""


def where(group: int) -> set[frozenset[int]]:
    """The sets of cores that threads of a process group may run on."""
    found = set()
    for pid in members(group):
        for tid in threads(pid):
            try:
                found.add(frozenset(os.sched_getaffinity(tid)))
            except ProcessLookupError:
                continue
    return found


@pytest.fixture
def restless(tmp_path) -> Iterator[int]:
    """The group of a busy family of two processes, ten threads and more."""
    script = tmp_path / "restless.py"
    script.write_text(RESTLESS)
    child = subprocess.Popen([sys.executable, str(script)], process_group=0)
    wait_until(lambda: len(members(child.pid)) == 2 and all(len(threads(pid)) > 4 for pid in members(child.pid)), 20)
    yield child.pid
    os.killpg(child.pid, 9)
    child.wait()


def test_no_thread_of_a_family_that_makes_them_all_the_time_is_left_behind(restless):
    for cores in (LAST, EVERY, LAST):
        pin_group(restless, cores)
        for _ in range(20):
            assert where(restless) == {cores}


def test_nobody_else_is_moved(restless):
    before = {tid: os.sched_getaffinity(tid) for tid in threads(os.getpid())}
    pin_group(restless, LAST)
    assert {tid: os.sched_getaffinity(tid) for tid in before} == before


def test_a_process_that_is_gone_is_let_be():
    child = subprocess.Popen([sys.executable, "-c", ""], process_group=0)
    child.wait()
    pin_group(child.pid, LAST)
    assert threads(child.pid) == set()
    assert members(child.pid) == set()


@pytest.fixture
def confined(tmp_path, monkeypatch):
    """Runs the restless family confined, tended as the named step is; yields its group and the traffic beside it."""
    (tmp_path / "restless.py").write_text(RESTLESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    over, groups, running = threading.Event(), [], []

    def start(step: str, traffic: Traffic) -> int:
        tending = Tending(step, 19, traffic)

        def tend(pid: int) -> None:
            groups.append(pid)
            tending(pid)

        limits = Limits(seconds=60, memory_bytes=2 * GIB, nice=19, idle=True, cores=tending.cores)
        options = {"limits": limits, "workdir": tmp_path, "tend": tend, "cancelled": over.is_set}
        running.append(threading.Thread(target=run_confined, args=("restless", []), kwargs=options))
        running[-1].start()
        wait_until(lambda: bool(groups) and len(members(groups[0])) == 2, 20)
        return groups[0]

    yield start
    over.set()
    for thread in running:
        thread.join(20)


def test_a_child_makes_way_when_requests_come_and_has_every_core_again_when_they_rest(confined):
    traffic = Traffic(flows=False)
    group = confined("transform", traffic)
    assert where(group) == {EVERY}
    traffic.told(True)
    wait_until(lambda: where(group) == {LAST}, 10)
    time.sleep(0.2)
    assert where(group) == {LAST}
    traffic.told(False)
    wait_until(lambda: where(group) == {EVERY}, 10)


def test_a_child_that_begins_while_requests_flow_begins_out_of_their_way(confined):
    assert where(confined("agree", Traffic(flows=True))) == {LAST}

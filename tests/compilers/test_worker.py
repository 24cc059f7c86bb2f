"""The worker as a process among processes: claimed at once, cancelled, stopped, killed at every step."""

import signal
import socket
import sqlite3
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from compilers.patience import patiently
from compilers.worker import sweep
from model_store.entities import JobKind, JobState, VersionStatus
from model_store.fsck import fsck
from tests import zoo
from tests.compilers.compiling import ended, events, register, start_worker, variants, wait_until, working

SAMPLES = {"x": np.random.default_rng(5).standard_normal((100, 256)).astype(np.float32)}


def model(seed=0):
    return zoo.mlp(hidden=512, inputs=256, seed=seed)


def begun(store, jobs, step):
    return any(event.step == step and event.status == "started" for event in events(store, jobs))


@pytest.mark.parametrize("steps", [("probe", "transform", "agree"), ("build", "measure"), ("outputs",)], ids="-".join)
def test_a_worker_killed_at_any_step_resumes_without_repeating_one(store, steps):
    _, jobs = register(store, "mlp", model(), samples=SAMPLES, techniques=["fusion"])
    data = store.work.parent
    for step in steps:
        worker = start_worker(data)
        wait_until(lambda step=step: begun(store, jobs, step), 30)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        wait_until(lambda: not running_steps(data), 10)
    worker = start_worker(data)
    try:
        assert {job.state for job in ended(store, jobs)} == {JobState.SUCCEEDED}
    finally:
        worker.terminate()
        worker.kill()
        worker.wait()
    ran = Counter((e.step, e.data["subject"]) for e in events(store, jobs) if e.data.get("reused") is False)
    assert set(ran.values()) == {1}, ran
    assert set(variants(store, "mlp")) == {"reference", "ort-cpu.graph-opt"}
    assert store.catalog.version("mlp", "1").status is VersionStatus.READY
    assert fsck(store).problems == ()
    sweep(store.work)
    assert list(store.work.iterdir()) == []


def running_steps(data):
    """Children that still work in the store's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:
            continue
        if b"compilers.steps" in command and str(data).encode() in command:
            found.append(process.parent.name)
    return found


def test_cancelling_a_job_ends_its_child_and_leaves_nothing_half_done(store):
    _, jobs = register(store, "mlp", model(), samples=SAMPLES)
    with working(store):
        wait_until(lambda: begun(store, jobs, "measure"), 60)
        store.catalog.cancel(jobs[1].id)
        wait_until(lambda: not running_steps(store.work.parent), 10)
        assert [job.state for job in ended(store, jobs)] == [JobState.SUCCEEDED, JobState.CANCELLED]
        _, more = register(store, "next", zoo.fixed_batch())
        assert ended(store, more[:1])[0].state is JobState.SUCCEEDED
    assert set(variants(store, "mlp")) == {"reference"}
    assert fsck(store).problems == ()


def test_a_worker_that_is_told_to_stop_gives_its_job_back_at_once(store):
    _, jobs = register(store, "mlp", model(), samples=SAMPLES, techniques=["fusion"])
    with working(store):
        wait_until(lambda: begun(store, jobs, "transform"), 60)
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 10
    job = store.catalog.job(jobs[1].id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    with working(store):
        assert {job.state for job in ended(store, jobs)} == {JobState.SUCCEEDED}


def test_the_next_reference_does_not_wait_for_a_compilation(store):
    _, first = register(store, "first", model(), samples=SAMPLES)
    with working(store):
        wait_until(lambda: begun(store, first, "measure"), 60)
        register(store, "second", zoo.fixed_batch())
        wait_until(lambda: "reference" in variants(store, "second"), 30)
        assert not store.catalog.job(first[1].id).state.ended


def test_compile_again_takes_the_recipes_and_the_policy_it_is_asked(store):
    version, jobs = register(store, "mlp", model(), samples=SAMPLES, techniques=["fusion"])
    with working(store):
        ended(store, jobs)
        asked = {"recipes": ["int8-static"], "policy": {"rows": [2], "budget_seconds": 30}}
        again = store.catalog.enqueue("mlp", version.version, ["ort-cpu"], asked)
        ended(store, again)
    found = variants(store, "mlp")
    assert set(found) == {"reference", "ort-cpu.graph-opt", "ort-cpu.int8-static"}
    assert [timing.rows for timing in found["ort-cpu.int8-static"].evidence.timings] == [2]


def test_a_locked_catalog_is_waited_for(store):
    _, jobs = register(store, "small", zoo.fixed_batch())
    blocker = sqlite3.connect(store.work.parent / "catalog.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with working(store):
        time.sleep(6)  # longer than a transaction waits for another one
        blocker.execute("ROLLBACK")
        assert ended(store, jobs[:1])[0].state is JobState.SUCCEEDED
    assert store.catalog.job(jobs[0].id).attempt == 1


def test_a_bug_ends_the_job_after_its_attempts_and_says_what_it_was(store):
    version, jobs = register(store, "mlp", zoo.fixed_batch())
    store.blobs.delete(version.model)
    with working(store):
        ended(store, jobs)
    job = store.catalog.job(jobs[0].id)
    assert (job.state, job.attempt) == (JobState.FAILED, 3)
    assert "BlobMissing" in job.error


def test_patience_ends(store):
    calls = []

    def away():
        calls.append(1)
        raise OperationalError("", {}, Exception("away"))

    with pytest.raises(OperationalError):
        patiently(away, seconds=0.3)
    assert len(calls) > 2
    assert patiently(lambda: 7) == 7


def test_folders_of_dead_workers_are_swept_and_those_of_others_kept(store, tmp_path):
    work = store.work
    for owner in ("999999999", "1", "x"):
        (work / f"job-{socket.gethostname()}-{owner}-abc_d").mkdir()
    (work / "register-abc").mkdir()
    sweep(work)
    left = {folder.name for folder in work.iterdir()}
    assert left == {f"job-{socket.gethostname()}-1-abc_d", "register-abc"}


def test_a_reference_is_claimed_before_older_compilations(store):
    _, jobs = register(store, "mlp", zoo.fixed_batch())
    assert store.catalog.claim("test", [JobKind.COMPILE], 10) is None
    assert store.catalog.claim("test", [JobKind.REFERENCE], 10).id == jobs[0].id

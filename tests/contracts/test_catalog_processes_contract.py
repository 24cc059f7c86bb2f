"""What every catalog promises to many processes at once, and to those that are killed: real processes throughout."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from model_store import database
from model_store.catalog import Catalog
from model_store.entities import JobKind, JobState, Verdict, VersionStatus
from model_store.errors import LeaseLost
from tests.rows import EVERY_KIND, publish_reference, register, variant

_FORK = multiprocessing.get_context("fork")  # many times faster than spawn, which imports everything anew
WORKERS = 4


def run_together(target: Callable[..., None], count: int, *args: Any) -> list[Any]:
    """Run `target(results, start, number, *args)` in `count` new processes at the same moment; what each put.

    No catalog may be open across the fork: `close` it first, it opens again by itself when used.
    """
    results, start = _FORK.Queue(), _FORK.Barrier(count)
    children = [_FORK.Process(target=target, args=(results, start, n, *args)) for n in range(count)]
    for child in children:
        child.start()
    gathered = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=30)
        assert child.exitcode == 0
    return gathered


def _claim_all(results: Any, start: Any, number: int, url: str) -> None:
    catalog = Catalog.connect(url)
    start.wait(60)
    claimed = []
    while (job := catalog.claim(f"w{number}", EVERY_KIND, 60.0)) is not None:
        claimed.append((job.id, job.token))
        catalog.append_event(job, "work", "done", f"w{number}")
    results.put(claimed)
    catalog.close()


def test_no_job_is_claimed_twice_by_processes_that_race(catalog: Catalog, database_url: str) -> None:
    register(catalog, targets=[f"target-{n}" for n in range(100)])
    publish_reference(catalog)
    catalog.close()
    gathered = run_together(_claim_all, WORKERS, database_url)
    claimed = [job for one in gathered for job in one]
    assert sorted(int(job) for job, _ in claimed) == list(range(2, 102))
    assert {token for _, token in claimed} == {1}
    assert all(len(catalog.events(job)) == 1 for job, _ in claimed)


def _register_some(results: Any, start: Any, number: int, url: str) -> None:
    catalog = Catalog.connect(url)
    start.wait(60)
    results.put([int(register(catalog, targets=("ort-cpu",))[0].version) for _ in range(10)])
    catalog.close()


def test_processes_that_register_one_name_get_numbers_without_gap_or_double(
    catalog: Catalog, database_url: str
) -> None:
    before = catalog.sequence()
    catalog.close()
    gathered = run_together(_register_some, WORKERS, database_url)
    assert all(one == sorted(one) for one in gathered)
    assert sorted(number for one in gathered for number in one) == list(range(1, 10 * WORKERS + 1))
    assert catalog.sequence() == before + 10 * WORKERS


def _work_with_short_leases(results: Any, start: Any, number: int, url: str) -> None:
    """A worker that stalls in half of its jobs; what it says it finished is what the catalog accepted."""
    catalog = Catalog.connect(url)
    start.wait(60)
    finished = []
    for _ in range(200):
        job = catalog.claim(f"w{number}", (JobKind.COMPILE,), 0.25)
        if job is None:
            if all(one.state.ended for one in catalog.jobs()):
                break
            threading.Event().wait(0.02)
            continue
        if (int(job.id) + number) % 2 and job.attempt < 3:
            threading.Event().wait(0.3)
        with contextlib.suppress(LeaseLost):
            version = catalog.version(job.name, job.version)
            catalog.publish(job, variant(version, f"{job.target}.r", Verdict.ELIGIBLE, at=float(number)))
            catalog.finish(job, JobState.SUCCEEDED)
            finished.append((job.id, number))
    results.put(finished)
    catalog.close()


def test_stalled_workers_never_finish_what_another_one_took_over(catalog: Catalog, database_url: str) -> None:
    register(catalog, targets=[f"target-{n}" for n in range(6)])
    publish_reference(catalog)
    catalog.close()
    gathered = run_together(_work_with_short_leases, 3, database_url)
    finished = dict(pair for one in gathered for pair in one)
    assert sum(map(len, gathered)) == len(finished), "nobody finished a job that was another's"
    succeeded = {job.id for job in catalog.jobs(state=JobState.SUCCEEDED)} - {"1"}
    assert succeeded == set(finished)
    assert catalog.version("digits", "1").status is VersionStatus.READY


def _killed_at(statement: int, url: str, verb: Callable[[Catalog], object]) -> bool:
    """Run `verb` in a forked child that is killed (SIGKILL) before its n-th statement; False when it came through."""
    child = os.fork()
    if child == 0:
        catalog = Catalog(database.connect(url))
        left = [statement]

        def count(*args: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(catalog._database._engine, "before_cursor_execute", count)
        event.listen(catalog._database._engine, "commit", count)
        verb(catalog)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def test_a_registration_killed_anywhere_is_whole_or_never_was(database_url: str) -> None:
    statement = 0
    while _killed_at(statement, database_url, register):
        statement += 1
    assert statement > 6
    catalog = Catalog.connect(database_url)
    assert [(version.version, version.status) for version in catalog.versions("digits")] == [
        ("1", VersionStatus.REGISTERED)
    ], "every killed one left nothing, not even a number"
    assert len(catalog.jobs()) == 3
    catalog.close()


def test_a_publication_killed_anywhere_is_whole_or_never_was(database_url: str) -> None:
    catalog = Catalog.connect(database_url)
    version, _ = register(catalog)
    job = catalog.claim("w", EVERY_KIND, 60.0)
    assert job is not None
    catalog.close()  # nothing may be open across the fork

    def publish(child: Catalog) -> None:
        child.publish(job, variant(version))
        child.finish(job, JobState.SUCCEEDED)

    seen, statement = set(), 0
    while _killed_at(statement, database_url, publish):
        statement += 1
        after = Catalog.connect(database_url)
        seen.add((len(after.variants("digits", "1")), after.version("digits", "1").status))
        after.close()
        if (1, VersionStatus.COMPILING) in seen:
            break  # finished: from here on the child only loses its lease
    assert {(0, VersionStatus.REGISTERED), (1, VersionStatus.REGISTERED)} <= seen


@pytest.mark.parametrize("sharers", [8])
def test_threads_may_share_a_catalog(catalog: Catalog, sharers: int) -> None:
    register(catalog, targets=[f"target-{n}" for n in range(40)])
    publish_reference(catalog)
    claimed: list[str] = []

    def work() -> None:
        while (job := catalog.claim("w", EVERY_KIND, 60.0)) is not None:
            claimed.append(job.id)
            catalog.finish(job, JobState.SUCCEEDED)
            catalog.snapshot()

    threads = [threading.Thread(target=work) for _ in range(sharers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 40
    assert catalog.version("digits", "1").status is VersionStatus.READY

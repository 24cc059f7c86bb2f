"""What every catalog promises of jobs: order, leases, fences, attempts, and what their ends mean for a version."""

import time

import pytest

from model_store.catalog import Catalog
from model_store.entities import Job, JobKind, JobState, VersionStatus
from model_store.errors import Conflict, LeaseLost, NotFound
from model_store.jobs import MAX_ATTEMPTS
from tests.rows import EVERY_KIND, expire, publish_reference, register, variant


def claim(catalog: Catalog, worker: str = "w") -> Job:
    job = catalog.claim(worker, EVERY_KIND, 60.0)
    assert job is not None
    return job


def test_a_claim_takes_the_job_for_a_time_and_counts(catalog: Catalog) -> None:
    register(catalog)
    job = claim(catalog, "worker-1")
    assert (job.state, job.attempt, job.token, job.worker) == (JobState.RUNNING, 1, 1, "worker-1")
    assert job.started_at is not None and job.lease_until == pytest.approx(job.started_at + 60.0, abs=1.0)
    assert catalog.job(job.id) == job


def test_references_come_first_then_the_oldest(catalog: Catalog) -> None:
    register(catalog, "a")
    register(catalog, "b")
    publish_reference(catalog)
    order = [claim(catalog) for _ in range(3)]
    assert [(job.name, job.kind, job.target) for job in order] == [
        ("b", JobKind.REFERENCE, "ort-cpu"),
        ("a", JobKind.COMPILE, "ort-cpu"),
        ("a", JobKind.COMPILE, "openvino-cpu"),
    ]
    assert catalog.claim("w", EVERY_KIND, 60.0) is None, "what is left waits for the reference of b"


def test_lower_priorities_are_claimed_first_but_after_every_reference(catalog: Catalog) -> None:
    for name, priority in (("late", 9), ("usual", 5), ("first", 0)):
        register(catalog, name, targets=["ort-cpu"], priority=priority)
        publish_reference(catalog)
    again = catalog.enqueue("usual", "1", ["openvino-cpu"], {"policy": {"priority": 1}})
    register(catalog, "new", priority=9)
    order = [claim(catalog) for _ in range(5)]
    assert [job.name for job in order] == ["new", "first", "usual", "usual", "late"]
    assert order[2].id == again[0].id
    assert [job.priority for job in order] == [9, 0, 1, 5, 9]


def test_a_compile_job_waits_until_the_reference_is_published(catalog: Catalog) -> None:
    version, _ = register(catalog)
    reference = catalog.claim("w", (JobKind.REFERENCE,), 60.0)
    assert reference is not None
    assert catalog.claim("w", (JobKind.COMPILE,), 60.0) is None
    catalog.publish(reference, variant(version))
    assert catalog.claim("w", (JobKind.COMPILE,), 60.0) is not None


def test_a_worker_gets_only_the_kinds_it_asks_for(catalog: Catalog) -> None:
    register(catalog)
    publish_reference(catalog)
    assert catalog.claim("w", (JobKind.REFERENCE,), 60.0) is None
    assert catalog.claim("w", (), 60.0) is None


def test_a_heartbeat_renews_the_lease(catalog: Catalog) -> None:
    register(catalog)
    job = claim(catalog)
    assert catalog.heartbeat(job, 600.0)
    assert catalog.job(job.id).lease_until > job.lease_until + 500
    assert catalog.claim("other", EVERY_KIND, 60.0) is None


def test_a_lease_ends_by_itself(catalog: Catalog) -> None:
    register(catalog, targets=())
    job = catalog.claim("slow", EVERY_KIND, 0.2)
    assert job is not None
    time.sleep(0.3)
    assert not catalog.heartbeat(job, 60.0)
    taken = claim(catalog, "next")
    assert (taken.id, taken.token, taken.attempt, taken.worker) == (job.id, 2, 2, "next")
    assert taken.error == "worker slow stopped answering in attempt 1"
    assert "next takes over" in catalog.events(job.id)[0].text


def test_leases_go_by_the_clock_of_the_database(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    register(catalog, targets=())
    job = claim(catalog)
    an_hour_on = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: an_hour_on)
    assert catalog.claim("a worker whose clock is wrong", EVERY_KIND, 60.0) is None
    assert catalog.heartbeat(job, 60.0)
    assert catalog.job(job.id).lease_until < an_hour_on


def test_whoever_lost_the_lease_can_write_nothing(catalog: Catalog) -> None:
    version, _ = register(catalog)
    stalled = claim(catalog, "stalled")
    expire(catalog, stalled)
    successor = claim(catalog, "successor")
    assert not catalog.heartbeat(stalled, 60.0)
    for write in (
        lambda: catalog.publish(stalled, variant(version)),
        lambda: catalog.finish(stalled, JobState.FAILED, "too late"),
        lambda: catalog.append_event(stalled, "probe", "done", "too late"),
        lambda: catalog.release(stalled),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert catalog.variants("digits", "1") == ()
    assert catalog.job(successor.id) == successor
    catalog.publish(successor, variant(version))
    catalog.finish(successor, JobState.SUCCEEDED)


def test_an_expired_lease_is_lost_even_when_nobody_took_over(catalog: Catalog) -> None:
    version, _ = register(catalog)
    job = claim(catalog)
    expire(catalog, job)
    with pytest.raises(LeaseLost):
        catalog.publish(job, variant(version))


def test_a_job_that_loses_every_worker_fails_with_its_last_error(catalog: Catalog) -> None:
    register(catalog)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        job = claim(catalog, f"w{attempt}")
        assert job.attempt == attempt
        expire(catalog, job)
    assert catalog.claim("w4", EVERY_KIND, 60.0) is None, "poison is not passed on"
    failed = catalog.job(job.id)
    assert (failed.state, failed.attempt) == (JobState.FAILED, 3)
    assert failed.error is not None and failed.error.startswith(
        "given up after 3 attempts: worker w3 stopped answering"
    )
    version = catalog.version("digits", "1")
    assert (version.status, version.reason) == (VersionStatus.FAILED, failed.error)


def test_poison_does_not_hide_the_work_behind_it(catalog: Catalog) -> None:
    register(catalog, "poison")
    register(catalog, "fine")
    for _ in range(MAX_ATTEMPTS):
        expire(catalog, claim(catalog))
    assert claim(catalog).name == "fine"


def test_a_job_handed_back_unharmed_keeps_its_attempts(catalog: Catalog) -> None:
    register(catalog)
    for _ in range(MAX_ATTEMPTS + 2):
        job = claim(catalog)
        assert job.attempt == 1
        catalog.release(job)
        assert not catalog.heartbeat(job, 60.0)
        assert catalog.job(job.id).state is JobState.QUEUED


def test_a_job_handed_back_with_an_error_counts_and_fails_at_last(catalog: Catalog) -> None:
    register(catalog)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        job = claim(catalog)
        assert job.attempt == attempt
        catalog.release(job, "disk full")
    ended = catalog.job(job.id)
    assert (ended.state, ended.error) == (JobState.FAILED, "disk full")


def test_a_version_goes_from_registered_over_compiling_to_ready(catalog: Catalog) -> None:
    register(catalog)

    def status() -> VersionStatus:
        return catalog.version("digits", "1").status

    assert status() is VersionStatus.REGISTERED
    publish_reference(catalog)
    assert status() is VersionStatus.COMPILING
    catalog.finish(claim(catalog), JobState.SUCCEEDED)
    assert status() is VersionStatus.COMPILING
    catalog.finish(claim(catalog), JobState.FAILED, "openvino refused it")
    assert status() is VersionStatus.READY, "what did not compile takes nothing from the reference"


def test_a_version_without_targets_is_ready_with_its_reference(catalog: Catalog) -> None:
    register(catalog, targets=())
    publish_reference(catalog)
    assert catalog.version("digits", "1").status is VersionStatus.READY


def test_a_failed_reference_fails_the_version_and_cancels_the_rest(catalog: Catalog) -> None:
    register(catalog)
    catalog.finish(claim(catalog), JobState.FAILED, "SIGSEGV while opening")
    version = catalog.version("digits", "1")
    assert (version.status, version.reason) == (VersionStatus.FAILED, "SIGSEGV while opening")
    assert [job.state for job in catalog.jobs()] == [JobState.CANCELLED, JobState.CANCELLED, JobState.FAILED]
    assert "SIGSEGV" in (catalog.jobs()[0].error or "")
    assert catalog.snapshot().models[0][1] == ()


def test_a_reference_job_cannot_succeed_without_its_variant(catalog: Catalog) -> None:
    register(catalog)
    job = claim(catalog)
    with pytest.raises(Conflict, match="not published"):
        catalog.finish(job, JobState.SUCCEEDED)
    assert catalog.heartbeat(job, 60.0)


def test_a_job_finishes_only_as_something_ended(catalog: Catalog) -> None:
    register(catalog)
    job = claim(catalog)
    for state in (JobState.QUEUED, JobState.RUNNING):
        with pytest.raises(ValueError, match="release"):
            catalog.finish(job, state)


def test_a_finished_job_is_finished_once(catalog: Catalog) -> None:
    register(catalog)
    job = publish_reference(catalog)
    with pytest.raises(LeaseLost):
        catalog.finish(job, JobState.FAILED, "again")
    assert catalog.job(job.id).finished_at is not None


def test_a_success_forgets_the_errors_before_it(catalog: Catalog) -> None:
    register(catalog, targets=())
    expire(catalog, claim(catalog))
    assert catalog.job(publish_reference(catalog).id).error is None


def test_cancelling_stops_the_worker_and_lets_the_version_be_ready(catalog: Catalog) -> None:
    register(catalog)
    publish_reference(catalog)
    held = claim(catalog)
    assert catalog.cancel(held.id).state is JobState.CANCELLED
    assert not catalog.heartbeat(held, 60.0)
    assert catalog.version("digits", "1").status is VersionStatus.COMPILING
    waiting = catalog.jobs(state=JobState.QUEUED)[0]
    catalog.cancel(waiting.id)
    assert catalog.version("digits", "1").status is VersionStatus.READY
    assert catalog.cancel(held.id) == catalog.job(held.id), "cancelling again changes nothing"
    with pytest.raises(NotFound):
        catalog.cancel("4711")


def test_cancelling_the_reference_fails_the_version(catalog: Catalog) -> None:
    _, jobs = register(catalog)
    catalog.cancel(jobs[0].id)
    assert catalog.version("digits", "1").status is VersionStatus.FAILED
    assert {job.state for job in catalog.jobs()} == {JobState.CANCELLED}


def test_compiling_again_reopens_a_version_that_was_ready(catalog: Catalog) -> None:
    register(catalog, targets=())
    publish_reference(catalog)
    (job,) = catalog.enqueue("digits", "1", ["ort-cpu"], {"recipes": ["int8-static"]})
    assert (job.kind, job.request) == (JobKind.COMPILE, {"recipes": ["int8-static"]})
    assert catalog.version("digits", "1").status is VersionStatus.COMPILING
    catalog.finish(claim(catalog), JobState.SUCCEEDED)
    assert catalog.version("digits", "1").status is VersionStatus.READY


def test_compiling_a_failed_version_again_tries_the_reference_again(catalog: Catalog) -> None:
    register(catalog)
    catalog.finish(claim(catalog), JobState.FAILED, "no memory")
    added = catalog.enqueue("digits", "1", ["ort-cpu"], {})
    assert [job.kind for job in added] == [JobKind.REFERENCE, JobKind.COMPILE]
    assert catalog.version("digits", "1").status is VersionStatus.REGISTERED
    publish_reference(catalog)
    assert catalog.version("digits", "1").status is VersionStatus.COMPILING


def test_a_target_is_not_compiled_twice_at_once(catalog: Catalog) -> None:
    register(catalog)
    with pytest.raises(Conflict, match="already"):
        catalog.enqueue("digits", "1", ["openvino-cpu"], {})
    with pytest.raises(NotFound):
        catalog.enqueue("digits", "2", ["ort-cpu"], {})


def test_jobs_are_listed_newest_first_by_model_and_state(catalog: Catalog) -> None:
    register(catalog, "a")
    register(catalog, "b")
    publish_reference(catalog)
    assert [int(job.id) for job in catalog.jobs()] == [6, 5, 4, 3, 2, 1]
    assert [int(job.id) for job in catalog.jobs("a", JobState.QUEUED)] == [3, 2]
    assert len(catalog.jobs(limit=2)) == 2


def test_the_log_of_a_job_only_grows_and_is_read_on_from_where_one_was(catalog: Catalog) -> None:
    register(catalog)
    job = claim(catalog)
    for n in range(3):
        catalog.append_event(job, "probe", "progress", f"line {n}", {"n": n})
    lines = catalog.events(job.id)
    assert [(line.seq, line.text, line.data) for line in lines] == [(n + 1, f"line {n}", {"n": n}) for n in range(3)]
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    assert catalog.events(job.id, after=2) == lines[2:]
    assert catalog.events(job.id, after=3) == ()
    with pytest.raises(NotFound):
        catalog.events("4711")

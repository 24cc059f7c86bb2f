"""What every catalog promises of jobs: order, leases, fences, attempts and logs."""

import time

import pytest

from model_store.catalog import Catalog
from model_store.entities import JobKind, JobState, VersionStatus
from model_store.errors import Conflict, LeaseLost, NotFound
from model_store.jobs import MAX_ATTEMPTS
from tests.rows import EVERY_KIND, claim, expire, publish_reference, register, variant


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

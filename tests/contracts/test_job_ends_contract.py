"""What every catalog promises of how jobs end: once, and what each end means for the version it was for."""

import pytest

from model_store.catalog import Catalog
from model_store.entities import JobKind, JobState, VersionStatus
from model_store.errors import Conflict, LeaseLost, NotFound
from tests.rows import claim, expire, publish_reference, register


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

"""What every catalog promises of models, versions, aliases and steps, on SQLite and on PostgreSQL."""

import pytest

from model_store.catalog import Catalog
from model_store.entities import REFERENCE, JobKind, JobState, VersionStatus
from model_store.errors import Conflict, InvalidName, NotFound
from tests.rows import EVERY_KIND, SIGNATURE, claim, digest, publish_reference, register, variant


def test_a_registered_version_reads_back_as_it_was_given(catalog: Catalog) -> None:
    version, jobs = register(catalog)
    assert catalog.version("digits", "1") == version
    assert (version.status, version.signature, version.operators) == (
        VersionStatus.REGISTERED,
        SIGNATURE,
        {"Gemm": 2, "Relu": 1},
    )
    assert [(job.kind, job.target, job.state) for job in jobs] == [
        (JobKind.REFERENCE, "ort-cpu", JobState.QUEUED),
        (JobKind.COMPILE, "ort-cpu", JobState.QUEUED),
        (JobKind.COMPILE, "openvino-cpu", JobState.QUEUED),
    ]
    assert [catalog.job(job.id) for job in jobs] == list(jobs)


def test_a_refused_name_registers_nothing(catalog: Catalog) -> None:
    before = catalog.sequence()
    with pytest.raises(InvalidName):
        register(catalog, "no/slashes")
    assert catalog.models() == () and catalog.jobs() == () and catalog.sequence() == before


def test_version_numbers_rise_and_are_never_used_again(catalog: Catalog) -> None:
    assert [register(catalog)[0].version for _ in range(2)] == ["1", "2"]
    catalog.delete_version("digits", "2")
    assert register(catalog)[0].version == "3"
    catalog.delete_model("digits")
    assert register(catalog)[0].version == "4"
    assert register(catalog, "other")[0].version == "1"


def test_versions_are_in_the_order_of_their_numbers(catalog: Catalog) -> None:
    for _ in range(11):
        register(catalog, targets=())
    assert catalog.model("digits").versions == tuple(str(n) for n in range(1, 12))
    assert [version.version for version in catalog.versions("digits")] == [str(n) for n in range(1, 12)]


def test_models_are_listed_by_name_with_versions_and_aliases(catalog: Catalog) -> None:
    register(catalog, "b")
    register(catalog, "a")
    catalog.set_alias("a", "canary", "1")
    assert [(m.name, m.versions, m.aliases) for m in catalog.models()] == [
        ("a", ("1",), {"canary": "1"}),
        ("b", ("1",), {}),
    ]


def test_what_is_not_there_is_answered_with_what_is(catalog: Catalog) -> None:
    register(catalog)
    with pytest.raises(NotFound, match="did you mean 'digits'"):
        catalog.model("digist")
    with pytest.raises(NotFound, match="versions: 1; aliases: none"):
        catalog.version("digits", "7")
    with pytest.raises(NotFound, match="neither version nor alias 'champion'"):
        catalog.resolve("digits", "champion")
    with pytest.raises(NotFound, match="no variant 'reference'"):
        catalog.variant("digits", "1", REFERENCE)
    for odd in ("", "01", "-1", "1.0", "²", "99999999999999999999", "1' OR '1'='1"):
        with pytest.raises(NotFound):
            catalog.version("digits", odd)
        with pytest.raises(NotFound):
            catalog.job(odd)


def test_names_that_no_database_holds_are_simply_not_found(catalog: Catalog) -> None:
    register(catalog)
    for odd in ("\0", "digits\0", "\udcff", "x" * 100_000):
        for look_up in (catalog.model, catalog.versions, catalog.resolve, catalog.delete_model, catalog.revoke_key):
            with pytest.raises(NotFound):
                look_up(odd)
        for look_up in (catalog.version, catalog.resolve, catalog.delete_alias):
            with pytest.raises(NotFound):
                look_up("digits", odd)
        with pytest.raises(NotFound):
            catalog.variant("digits", "1", odd)
        assert catalog.find_key(odd) is None
        assert catalog.jobs(odd) == ()


def test_resolve_takes_number_alias_or_the_newest_that_answers(catalog: Catalog) -> None:
    register(catalog)
    register(catalog)
    assert catalog.resolve("digits").version == "2", "none answers yet: the newest"
    publish_reference(catalog)
    assert catalog.resolve("digits").version == "1", "the newest that answers"
    assert catalog.resolve("digits", "2").version == "2"
    catalog.set_alias("digits", "canary", "2")
    assert catalog.resolve("digits", "canary").version == "2"
    catalog.set_alias("digits", "champion", "2")
    assert catalog.resolve("digits").version == "2", "the champion before all others"


def test_an_alias_moves_and_goes(catalog: Catalog) -> None:
    register(catalog)
    register(catalog)
    catalog.set_alias("digits", "champion", "1")
    catalog.set_alias("digits", "champion", "2")
    assert catalog.model("digits").aliases == {"champion": "2"}
    catalog.delete_alias("digits", "champion")
    assert catalog.model("digits").aliases == {}
    with pytest.raises(NotFound):
        catalog.delete_alias("digits", "champion")


def test_an_alias_must_not_read_as_a_number_nor_mean_nothing(catalog: Catalog) -> None:
    register(catalog)
    with pytest.raises(InvalidName):
        catalog.set_alias("digits", "12", "1")
    with pytest.raises(NotFound):
        catalog.set_alias("digits", "champion", "2")
    assert catalog.model("digits").aliases == {}


def test_a_version_that_an_alias_means_is_not_deleted(catalog: Catalog) -> None:
    register(catalog)
    catalog.set_alias("digits", "champion", "1")
    with pytest.raises(Conflict, match="champion"):
        catalog.delete_version("digits", "1")
    assert catalog.version("digits", "1")


def test_deleting_a_version_takes_its_variants_and_cancels_its_jobs(catalog: Catalog) -> None:
    register(catalog)
    publish_reference(catalog)
    held = claim(catalog)
    catalog.delete_version("digits", "1")
    with pytest.raises(NotFound):
        catalog.variants("digits", "1")
    assert not catalog.heartbeat(held, 60.0), "its worker learns it at the next heartbeat"
    assert [job.state for job in reversed(catalog.jobs())] == [JobState.SUCCEEDED, *[JobState.CANCELLED] * 2]
    assert catalog.claim("w", EVERY_KIND, 60.0) is None
    assert catalog.live_blobs() == set()


def test_deleting_a_model_takes_everything_of_it_and_nothing_else(catalog: Catalog) -> None:
    register(catalog)
    register(catalog, "other")
    catalog.set_alias("digits", "champion", "1")
    catalog.delete_model("digits")
    assert [model.name for model in catalog.models()] == ["other"]
    assert {job.state for job in catalog.jobs("digits")} == {JobState.CANCELLED}
    assert {job.state for job in catalog.jobs("other")} == {JobState.QUEUED}


def test_the_sequence_rises_with_every_change_that_can_matter_to_routing(catalog: Catalog) -> None:
    version, _ = register(catalog)
    job = claim(catalog)
    key, _ = catalog.create_key(["predict"])
    for change in (
        lambda: register(catalog),
        lambda: catalog.publish(job, variant(version)),
        lambda: catalog.finish(job, JobState.SUCCEEDED),
        lambda: catalog.set_alias("digits", "champion", "1"),
        lambda: catalog.delete_alias("digits", "champion"),
        lambda: catalog.cancel("2"),
        lambda: catalog.delete_version("digits", "1"),
        lambda: catalog.revoke_key(key.id),
        lambda: catalog.delete_model("digits"),
    ):
        before = catalog.sequence()
        change()
        assert catalog.sequence() > before


def test_the_sequence_rests_while_nothing_matters_to_routing(catalog: Catalog) -> None:
    register(catalog)
    before = catalog.sequence()
    job = catalog.claim("w", EVERY_KIND, 60.0)
    assert job is not None and catalog.heartbeat(job, 60.0)
    catalog.append_event(job, "probe", "started", "")
    catalog.record_step("key", "probe", {}, ())
    catalog.snapshot(), catalog.models(), catalog.jobs()
    with pytest.raises(NotFound):
        catalog.delete_model("nothing")
    assert catalog.sequence() == before


def test_live_blobs_are_those_that_some_row_names(catalog: Catalog) -> None:
    register(catalog)
    publish_reference(catalog)
    catalog.record_step("key", "build", {"ok": True}, [digest("half-way")])
    assert catalog.live_blobs() == {digest("model"), digest("samples"), digest(REFERENCE), digest("half-way")}


def test_a_step_is_recorded_once_and_the_first_writer_wins(catalog: Catalog) -> None:
    assert catalog.step_result("key") is None
    catalog.record_step("key", "build", {"bytes": 5, "files": {"a": "b"}}, [digest("a")])
    catalog.record_step("key", "build", {"bytes": 6}, [digest("b")])
    assert catalog.step_result("key") == {"bytes": 5, "files": {"a": "b"}}
    assert catalog.live_blobs() == {digest("a")}


def test_steps_are_forgotten_by_key_or_when_nobody_asks_any_more(catalog: Catalog) -> None:
    catalog.record_step("a", "build", {})
    catalog.record_step("b", "build", {})
    catalog.forget_step("a")
    assert catalog.step_result("a") is None
    assert catalog.forget_steps(unused_for_s=3600.0) == 0
    assert catalog.forget_steps(unused_for_s=-1.0) == 1
    assert catalog.step_result("b") is None

"""What every catalog promises of variants: published with their evidence, refused, withdrawn, and shown to routing."""

import dataclasses

import pytest

from model_store.catalog import Catalog
from model_store.entities import REFERENCE, JobKind, JobState, Verdict, VersionStatus
from model_store.errors import Conflict
from tests.rows import claim, publish_reference, register, variant


def test_a_published_variant_reads_back_with_all_its_evidence(catalog: Catalog) -> None:
    version, _ = register(catalog)
    publish_reference(catalog)
    job = claim(catalog)
    tried = [variant(version, "ort-cpu.int8"), variant(version, "openvino-cpu.bf16", Verdict.REJECTED)]
    for one in tried:
        catalog.publish(job, one)
    assert catalog.variant("digits", "1", "ort-cpu.int8") == tried[0]
    assert {one.id for one in catalog.variants("digits", "1")} == {REFERENCE, "ort-cpu.int8", "openvino-cpu.bf16"}
    assert catalog.variants("digits", "1")[0].id == REFERENCE


def test_publishing_again_replaces_the_variant_of_that_id(catalog: Catalog) -> None:
    version, _ = register(catalog)
    publish_reference(catalog)
    job = claim(catalog)
    catalog.publish(job, variant(version, "ort-cpu.int8"))
    better = dataclasses.replace(variant(version, "ort-cpu.int8"), reason="measured again", size_bytes=5)
    catalog.publish(job, better)
    assert catalog.variant("digits", "1", "ort-cpu.int8") == better


def test_a_variant_cannot_serve_without_artifact_and_evidence(catalog: Catalog) -> None:
    version, _ = register(catalog)
    publish_reference(catalog)
    job = claim(catalog)
    unproven = variant(version, "ort-cpu.int8")
    for lacking in ({"artifact": None}, {"evidence": None}):
        with pytest.raises(ValueError, match="cannot serve without"):
            catalog.publish(job, dataclasses.replace(unproven, **lacking))
    with pytest.raises(ValueError, match="job"):
        catalog.publish(job, dataclasses.replace(unproven, version="2"))
    assert [one.id for one in catalog.variants("digits", "1")] == [REFERENCE]


def test_a_figure_that_json_cannot_hold_is_refused_and_takes_nothing_down(catalog: Catalog) -> None:
    version, _ = register(catalog)
    publish_reference(catalog)
    job = claim(catalog)
    good = variant(version, "ort-cpu.int8")
    assert good.evidence is not None and good.evidence.agreement is not None
    for odd in (float("nan"), float("inf")):
        agreement = dataclasses.replace(good.evidence.agreement, sqnr_db=odd)
        evidence = dataclasses.replace(good.evidence, agreement=agreement)
        with pytest.raises(ValueError, match="NaN"):
            catalog.publish(job, dataclasses.replace(good, evidence=evidence))
    assert len(catalog.snapshot().models[0][1][0][1]) == 1


def test_words_of_a_crashed_child_are_kept_whatever_they_hold(catalog: Catalog) -> None:
    version, _ = register(catalog)
    publish_reference(catalog)
    job = claim(catalog)
    rude = "SIGSEGV at \0 \udcff ☠ " + "x" * 10_000
    catalog.append_event(job, "build", "log", rude, {"tail": "a\0b"})
    catalog.publish(job, dataclasses.replace(variant(version, "ort-cpu.int8", Verdict.REJECTED), reason=rude))
    catalog.finish(job, JobState.FAILED, rude)
    assert "☠" in catalog.variant("digits", "1", "ort-cpu.int8").reason
    assert catalog.events(job.id)[0].data == {"tail": "a\0b"}
    assert "☠" in (catalog.job(job.id).error or "")


def test_a_withdrawn_variant_serves_no_more(catalog: Catalog) -> None:
    version, _ = register(catalog)
    publish_reference(catalog)
    job = claim(catalog)
    catalog.publish(job, variant(version, "ort-cpu.int8"))
    catalog.withdraw("digits", "1", "ort-cpu.int8", "it killed two runners")
    left = catalog.variant("digits", "1", "ort-cpu.int8")
    assert (left.verdict, left.reason, left.artifact) == (Verdict.REJECTED, "it killed two runners", None)
    with pytest.raises(Conflict):
        catalog.withdraw("digits", "1", REFERENCE, "never")


def test_the_snapshot_shows_answering_versions_with_variants_that_can_be_opened(catalog: Catalog) -> None:
    version, _ = register(catalog)
    register(catalog)  # version 2 has no reference yet: it answers nothing
    register(catalog, "empty")
    publish_reference(catalog)
    job = catalog.claim("w", (JobKind.COMPILE,), 60.0)
    assert job is not None
    for tried, verdict in (
        ("ort-cpu.int8", Verdict.SERVING),
        ("ort-cpu.graph-opt", Verdict.ELIGIBLE),
        ("ort-cpu.prune", Verdict.INCONCLUSIVE),
        ("ort-cpu.rejected", Verdict.REJECTED),
    ):
        catalog.publish(job, variant(version, tried, verdict, at=0.5))
    catalog.set_alias("digits", "champion", "1")
    shot = catalog.snapshot()
    assert shot.sequence == catalog.sequence()
    assert [(model.name, [v.version for v, _ in served]) for model, served in shot.models] == [
        ("digits", ["1"]),
        ("empty", []),
    ]
    assert shot.models[0][0] == catalog.model("digits")
    answering, variants = shot.models[0][1][0]
    assert answering.status is VersionStatus.COMPILING
    assert [one.id for one in variants] == [REFERENCE, "ort-cpu.graph-opt", "ort-cpu.int8", "ort-cpu.prune"]
    assert catalog.serving() == shot.models[0][1]

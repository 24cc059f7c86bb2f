"""fsck: damage is found and named, leftovers are not damage, and repairing never takes what is in use."""

import os
import time
from pathlib import Path

import pytest

from model_store.entities import REFERENCE, Artifact, JobState, ModelVersion, Plan, Variant, Verdict
from model_store.errors import BlobMissing
from model_store.fsck import GRACE_S, fsck
from model_store.store import ModelStore
from tests.rows import EVERY_KIND, EVIDENCE, SIGNATURE


@pytest.fixture
def version(store: ModelStore) -> ModelVersion:
    """A version with a reference and one variant, all of its bytes in place."""
    model = store.blobs.put_bytes(b"the model")
    registered, _ = store.catalog.register(
        "digits",
        model=model,
        size_bytes=9,
        signature=SIGNATURE,
        samples=store.blobs.put_bytes(b"the samples"),
        policy={},
        targets=["ort-cpu"],
        parameters=1,
        operators={},
    )
    job = store.catalog.claim("w", EVERY_KIND, 60.0)
    assert job is not None
    for name, target, content in ((REFERENCE, "ort-cpu", b"the model"), ("ort-cpu.int8", "ort-cpu", b"int8")):
        artifact = Artifact({"model.onnx": store.blobs.put_bytes(content)}, {}, len(content))
        store.catalog.publish(
            job,
            Variant(
                id=name,
                name="digits",
                version="1",
                recipe=name,
                target=target,
                techniques=(),
                parameters=1,
                size_bytes=len(content),
                verdict=Verdict.SERVING,
                reason="",
                artifact=artifact,
                evidence=EVIDENCE,
                plan=Plan(1, 1),
                created_at=1.0,
            ),
        )
    store.catalog.finish(job, JobState.SUCCEEDED)
    return store.catalog.version("digits", registered.version)


def _artifact(store: ModelStore, variant: str) -> str:
    artifact = store.catalog.variant("digits", "1", variant).artifact
    assert artifact is not None
    return artifact.files["model.onnx"]


def _corrupt(store: ModelStore, digest: str) -> None:
    path = store.blobs.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"bit rot")


def test_a_whole_store_is_clean(store: ModelStore, version: ModelVersion) -> None:
    report = fsck(store)
    assert report.clean and (report.blobs, report.rows, report.removed, report.unreferenced) == (3, 4, 0, 0)


def test_an_empty_store_is_clean(store: ModelStore) -> None:
    assert fsck(store, repair=True).clean


def test_missing_and_corrupt_blobs_are_named_with_every_row_that_needs_them(
    store: ModelStore, version: ModelVersion
) -> None:
    store.blobs.delete(version.model)
    _corrupt(store, _artifact(store, "ort-cpu.int8"))
    problems = fsck(store).problems
    assert len(problems) == 3
    assert any("missing" in one and "model digits/1" in one for one in problems)
    assert any("missing" in one and "variant digits/1/reference" in one for one in problems)
    assert any("corrupt" in one and "variant digits/1/ort-cpu.int8" in one for one in problems)


def test_looking_changes_nothing(store: ModelStore, version: ModelVersion) -> None:
    _corrupt(store, _artifact(store, "ort-cpu.int8"))
    before = store.catalog.snapshot()
    assert fsck(store).problems == fsck(store).problems
    assert store.catalog.snapshot() == before


def test_repairing_withdraws_a_damaged_variant_and_the_next_look_is_clean(
    store: ModelStore, version: ModelVersion
) -> None:
    damaged = _artifact(store, "ort-cpu.int8")
    _corrupt(store, damaged)
    assert not fsck(store, repair=True).clean
    left = store.catalog.variant("digits", "1", "ort-cpu.int8")
    assert left.verdict is Verdict.REJECTED and "damaged on disk" in left.reason
    assert not store.blobs.exists(damaged), "so that building it again writes it anew"
    assert fsck(store).clean


def test_a_damaged_model_stays_a_problem_until_the_same_bytes_come_again(
    store: ModelStore, version: ModelVersion
) -> None:
    _corrupt(store, version.model)
    assert not fsck(store, repair=True).clean
    assert not fsck(store, repair=True).clean
    store.blobs.put_bytes(b"the model")
    assert fsck(store).clean


def test_a_step_whose_blobs_are_gone_is_forgotten_so_that_it_runs_again(store: ModelStore) -> None:
    digest = store.blobs.put_bytes(b"half-way")
    store.catalog.record_step("key", "build", {"file": digest}, [digest])
    assert fsck(store).clean
    store.blobs.delete(digest)
    assert "step key" in fsck(store).problems[0]
    fsck(store, repair=True)
    assert store.catalog.step_result("key") is None
    assert fsck(store).clean


def test_what_no_row_names_is_removed_only_after_the_grace_period(store: ModelStore, version: ModelVersion) -> None:
    young, old = store.blobs.put_bytes(b"about to be named"), store.blobs.put_bytes(b"of a crashed upload")
    long_ago = time.time() - GRACE_S - 60
    os.utime(store.blobs.path(old), (long_ago, long_ago))
    looked = fsck(store)
    assert looked.clean and (looked.unreferenced, looked.removed) == (1, 0)
    repaired = fsck(store, repair=True)
    assert repaired.clean and repaired.removed == 1
    assert store.blobs.exists(young)
    with pytest.raises(BlobMissing):
        store.blobs.path(old)
    assert fsck(store).blobs == 4


def test_old_blobs_that_rows_name_are_never_removed(store: ModelStore, version: ModelVersion) -> None:
    for digest in store.blobs.digests():
        os.utime(store.blobs.path(digest), (1, 1))
    assert fsck(store, repair=True, grace_s=0.0).removed == 0
    assert fsck(store).clean


def test_the_blobs_of_a_deleted_version_are_collected(store: ModelStore, version: ModelVersion) -> None:
    store.catalog.delete_version("digits", "1")
    assert fsck(store, repair=True, grace_s=0.0).removed == 3
    assert list(store.blobs.digests()) == []


def test_journals_of_searches_long_ended_are_swept(store: ModelStore) -> None:
    store.searches.mkdir()
    old, young = store.searches / "old.journal", store.searches / "young.journal"
    for journal in (old, young):
        journal.write_text("{}")
    os.utime(old, (1.0, 1.0))
    assert fsck(store).problems == ()
    assert fsck(store, repair=True).removed == 1
    assert [entry.name for entry in store.searches.iterdir()] == [young.name]


def test_work_folders_of_crashes_are_swept_and_those_in_use_are_not(store: ModelStore) -> None:
    crashed, running = store.work / "register-crashed", store.work / "register-running"
    for folder in (crashed, running):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"...")
    os.utime(crashed, (1, 1))
    assert fsck(store, repair=True).removed == 1
    assert [entry.name for entry in store.work.iterdir()] == [running.name]


def test_a_version_that_answers_without_a_reference_is_a_problem(store: ModelStore, version: ModelVersion) -> None:
    from sqlalchemy import delete

    from model_store.tables import variants

    with store.catalog._database.write() as connection:
        connection.execute(delete(variants).where(variants.c.id == REFERENCE))
    assert fsck(store).problems == ("version digits/1 is compiling without a reference variant",)


def test_fsck_sees_the_blobs_folder_of_its_own_store_only(store: ModelStore, tmp_path: Path) -> None:
    other = ModelStore.open(tmp_path / "other")
    other.blobs.put_bytes(b"of the other")
    assert fsck(store).blobs == 0
    other.close()

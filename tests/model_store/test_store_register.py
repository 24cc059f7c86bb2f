"""Registering: intake, then blobs, then rows; all of it or nothing."""

import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_store.entities import JobKind, VersionStatus
from model_store.errors import InvalidModel, InvalidName, InvalidSamples
from model_store.fsck import fsck
from model_store.policy import InvalidPolicy
from model_store.store import ModelStore
from tests import zoo
from tests.rows import EVERY_KIND

TARGETS = ("ort-cpu", "openvino-cpu")


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    file = tmp_path / "mlp.onnx"
    file.write_bytes(zoo.mlp().SerializeToString())
    return file


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    file = tmp_path / "samples.npz"
    np.savez(file, x=np.zeros((20, 64), np.float32))
    return file


def assert_nothing_is_kept(store: ModelStore) -> None:
    assert store.catalog.models() == () and store.catalog.jobs() == ()
    assert list(store.blobs.digests()) == []
    assert list(store.work.iterdir()) == []


def test_a_registered_model_can_be_read_back_and_waits_for_its_compilation(
    store: ModelStore, upload: Path, samples: Path
) -> None:
    before = upload.read_bytes()
    version, jobs = store.register("mlp", upload, samples=samples, policy={"rows": [1, 4]}, targets=TARGETS)
    assert (version.name, version.version, version.status) == ("mlp", "1", VersionStatus.REGISTERED)
    assert [(job.kind, job.target) for job in jobs] == [
        (JobKind.REFERENCE, "ort-cpu"),
        (JobKind.COMPILE, "ort-cpu"),
        (JobKind.COMPILE, "openvino-cpu"),
    ]
    assert version.policy == {"rows": [1, 4]}, "as it was given: defaults may change, what was asked does not"
    assert [spec.name for spec in version.signature.inputs] == ["x"]
    assert version.parameters > 0 and version.operators.get("Gemm", 0) + version.operators.get("MatMul", 0) > 0
    kept = store.blobs.path(version.model)
    assert kept.stat().st_size == version.size_bytes
    onnx.checker.check_model(onnx.load(str(kept)))
    assert version.samples is not None and store.blobs.path(version.samples).read_bytes() == samples.read_bytes()
    assert upload.read_bytes() == before, "the upload stays the caller's"
    assert list(store.work.iterdir()) == []
    assert fsck(store).clean


def test_the_same_model_again_is_a_new_version_of_the_same_bytes(store: ModelStore, upload: Path) -> None:
    one, two = (store.register("mlp", upload, targets=())[0] for _ in range(2))
    assert (one.version, two.version) == ("1", "2")
    assert one.model == two.model
    assert len(list(store.blobs.digests())) == 1


def test_another_process_sees_what_was_registered(store: ModelStore, upload: Path) -> None:
    version, _ = store.register("mlp", upload, targets=TARGETS)
    other = ModelStore.open(store.work.parent)
    assert other.catalog.resolve("mlp") == version
    assert other.catalog.claim("w", EVERY_KIND, 60.0) is not None
    other.close()


def test_the_policy_narrows_the_targets_to_those_it_names(store: ModelStore, upload: Path) -> None:
    _, jobs = store.register("mlp", upload, policy={"targets": ["openvino-cpu"]}, targets=TARGETS)
    assert [job.target for job in jobs if job.kind is JobKind.COMPILE] == ["openvino-cpu"]


def test_a_name_or_policy_that_is_none_is_refused_before_anything_is_read(store: ModelStore, tmp_path: Path) -> None:
    absent = tmp_path / "never-opened.onnx"
    with pytest.raises(InvalidName):
        store.register("../etc", absent, targets=TARGETS)
    with pytest.raises(InvalidPolicy, match="did you mean 'objective'"):
        store.register("mlp", absent, policy={"objectiv": "latency"}, targets=TARGETS)
    with pytest.raises(InvalidPolicy, match="cannot build for 'tensorrt'; it can for ort-cpu"):
        store.register("mlp", absent, policy={"targets": ["tensorrt"]}, targets=("ort-cpu",))
    assert_nothing_is_kept(store)


def test_a_model_that_is_none_leaves_nothing_behind(store: ModelStore, tmp_path: Path) -> None:
    upload = tmp_path / "notes.onnx"
    upload.write_text("not a model")
    with pytest.raises(InvalidModel):
        store.register("mlp", upload, targets=TARGETS)
    assert_nothing_is_kept(store)


def test_samples_of_another_model_leave_nothing_behind(store: ModelStore, upload: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, image=np.zeros((4, 3), np.float32))
    with pytest.raises(InvalidSamples, match="x"):
        store.register("mlp", upload, samples=wrong, targets=TARGETS)
    assert_nothing_is_kept(store)


def test_an_artifact_is_found_by_the_names_of_its_files(store: ModelStore, upload: Path) -> None:
    from model_store.entities import Artifact

    digests = {"model.xml": store.blobs.put_bytes(b"<xml/>"), "model.bin": store.blobs.put_bytes(b"weights")}
    paths = store.artifact_paths(Artifact(digests, {"precision": "f32"}, 13))
    assert {name: path.read_bytes() for name, path in paths.items()} == {
        "model.xml": b"<xml/>",
        "model.bin": b"weights",
    }


def test_a_registration_killed_between_blob_and_row_leaves_only_unnamed_blobs(
    tmp_path: Path, upload: Path, samples: Path
) -> None:
    data = tmp_path / "killed"
    ModelStore.open(data).close()
    child = os.fork()
    if child == 0:
        store = ModelStore.open(data)
        store.catalog.register = lambda *args, **facts: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
        store.register("mlp", upload, samples=samples, targets=TARGETS)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    store = ModelStore.open(data)
    assert store.catalog.models() == ()
    young = fsck(store, repair=True)
    assert young.clean and (young.blobs, young.unreferenced, young.removed) == (2, 0, 0), "somebody may yet name them"
    old = fsck(store, repair=True, grace_s=0.0)
    assert old.clean and (old.blobs, old.unreferenced, old.removed) == (2, 2, 2)
    assert_nothing_is_kept(store)
    assert store.register("mlp", upload, targets=TARGETS)[0].version == "1"
    store.close()

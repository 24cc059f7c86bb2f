"""Blobs that lie packed: the same blobs to every reader, never handed out damaged, healed where they can be."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.blobs import LocalBlobs
from model_store.cold import pack_cold
from model_store.entities import Artifact, JobState, Verdict
from model_store.errors import BlobMissing
from model_store.fsck import fsck
from model_store.store import ModelStore
from tests.rows import EVERY_KIND, publish_reference, register, variant

WEIGHTS = np.round(np.random.default_rng(3).standard_normal(300_000), 1).astype(np.float32).tobytes()
NOISE = np.random.default_rng(4).bytes(200_000)


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def files(blobs: LocalBlobs) -> list[str]:
    return sorted(path.name for path in blobs.root.rglob("*") if path.is_file())


def test_a_packed_blob_is_the_same_blob(blobs: LocalBlobs) -> None:
    digest = blobs.put_bytes(WEIGHTS)
    added = blobs.added_at(digest)
    kept = blobs.pack(digest)
    assert kept.plain is None and kept.packed is not None and kept.kept == kept.packed < len(WEIGHTS) / 3
    assert files(blobs) == [f"{digest}.packed"]
    assert blobs.exists(digest) and blobs.size(digest) == len(WEIGHTS) and blobs.verify(digest)
    assert list(blobs.digests()) == [digest]
    assert blobs.added_at(digest) == added
    with blobs.open(digest) as file:
        assert file.read(10) + file.read() == WEIGHTS
    assert files(blobs) == [f"{digest}.packed"], "reading once needs no copy"


def test_whoever_needs_a_path_gets_the_plain_bytes_beside_the_packed(blobs: LocalBlobs) -> None:
    digest = blobs.put_bytes(WEIGHTS)
    added = blobs.added_at(digest)
    blobs.pack(digest)
    assert blobs.path(digest).read_bytes() == WEIGHTS
    assert files(blobs) == [digest, f"{digest}.packed"]
    assert blobs.added_at(digest) == added and blobs.unused_for_s(digest) < 60
    assert list(blobs.digests()) == [digest]
    assert blobs.pack(digest).plain is None
    assert blobs.pack(digest, keep_plain=True).plain is None, "it does not bring back what is gone"
    blobs.delete(digest)
    assert files(blobs) == [] and not blobs.exists(digest)


def test_a_packed_blob_may_keep_its_plain_copy(blobs: LocalBlobs) -> None:
    digest = blobs.put_bytes(WEIGHTS)
    kept = blobs.pack(digest, keep_plain=True)
    assert kept.plain == len(WEIGHTS) and kept.packed is not None and kept.kept == kept.packed


@pytest.mark.parametrize("content", [NOISE, b"small" * 10], ids=["noise", "small"])
def test_what_packing_does_not_pay_for_stays_as_it_is(blobs: LocalBlobs, content: bytes) -> None:
    digest = blobs.put_bytes(content)
    assert blobs.pack(digest) == (len(content), None)
    assert files(blobs) == [digest]


def test_a_blob_that_is_damaged_is_not_packed(blobs: LocalBlobs) -> None:
    digest = blobs.put_bytes(WEIGHTS)
    path = blobs.path(digest)
    path.chmod(0o644)
    path.write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(BlobMissing, match="damaged"):
        blobs.pack(digest)
    assert files(blobs) == [digest] and not blobs.verify(digest)


def test_a_damaged_packed_file_is_never_handed_out(blobs: LocalBlobs) -> None:
    digest = blobs.put_bytes(WEIGHTS)
    blobs.pack(digest)
    packed = next(blobs.root.rglob("*.packed"))
    packed.chmod(0o644)
    damaged = bytearray(packed.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    packed.write_bytes(damaged)
    assert not blobs.verify(digest)
    with pytest.raises(BlobMissing, match="cannot be unpacked"):
        blobs.path(digest)
    assert files(blobs) == [f"{digest}.packed"]
    assert blobs.put_bytes(WEIGHTS) == digest
    assert blobs.verify(digest) and files(blobs) == [digest], "what is put is whole; the damaged file is gone"


@pytest.mark.parametrize("which", ["plain", "packed"])
def test_of_two_files_one_whole_one_is_enough(blobs: LocalBlobs, which: str) -> None:
    digest = blobs.put_bytes(WEIGHTS)
    blobs.pack(digest, keep_plain=True)
    hurt = next(
        path for path in blobs.root.rglob(f"{digest}*") if path.suffix == (".packed" if which == "packed" else "")
    )
    hurt.chmod(0o644)
    hurt.write_bytes(b"?" * 100)
    assert blobs.verify(digest)
    assert not hurt.exists() and blobs.path(digest).read_bytes() == WEIGHTS


def test_what_an_interrupted_packer_left_is_swept(blobs: LocalBlobs) -> None:
    digest = blobs.put_bytes(WEIGHTS)
    left = blobs.root / "incoming" / "abc.packed"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    assert blobs.sweep(60) == 1 and files(blobs) == [digest]


def test_no_digest_is_missing_whatever_is_asked(blobs: LocalBlobs) -> None:
    for ask in (blobs.pack, blobs.footprint, blobs.unused_for_s, blobs.path, blobs.open, blobs.size, blobs.verify):
        for digest in ("../../etc/passwd", "0" * 64):
            with pytest.raises(BlobMissing):
                ask(digest)


def test_an_unused_blob_is_packed_and_what_answers_is_not(tmp_path: Path) -> None:
    store = ModelStore.open(tmp_path / "data")
    blobs = store.blobs
    names = ("model", "samples", "serving", "eligible", "step")
    digests = {name: blobs.put_bytes(name.encode() + WEIGHTS) for name in names}
    version, _ = store.catalog.register(
        "m", model=digests["model"], size_bytes=1, signature=register(store.catalog)[0].signature,
        samples=digests["samples"], policy={}, targets=["ort-cpu"], parameters=1, operators={},
    )  # fmt: skip
    for _ in range(2):
        publish_reference(store.catalog)
    while (job := store.catalog.claim("w", EVERY_KIND, 60.0)) is not None:
        if job.name == "m":
            for name, verdict in (("serving", Verdict.SERVING), ("eligible", Verdict.ELIGIBLE)):
                artifact = Artifact({"model.onnx": digests[name]}, {}, 1)
                store.catalog.publish(job, replace(variant(version, f"ort-cpu.{name}", verdict), artifact=artifact))
        store.catalog.finish(job, JobState.SUCCEEDED)
    store.catalog.record_step("key", "transform", {}, (digests["step"],))
    assert pack_cold(store).blobs == 0, "everything was used just now"
    before = fsck(store)
    for digest in digests.values():
        os.utime(blobs.path(digest), (time.time() - 7200,) * 2)
    saved = pack_cold(store)
    assert (saved.blobs, saved.dropped) == (3, 0) and saved.after < saved.before / 3
    packed = {name for name, digest in digests.items() if blobs.footprint(digest).plain is None}
    assert packed == {"samples", "eligible", "step"}
    assert fsck(store).blobs == before.blobs and {text for text in fsck(store).problems if "corrupt" in text} == set()
    for name in packed:
        os.utime(blobs.path(digests[name]), (time.time() - 7200,) * 2)
    assert pack_cold(store, most_copies_bytes=len(WEIGHTS) + 10).dropped == 2
    assert pack_cold(store, stopped=lambda: True).blobs == 0

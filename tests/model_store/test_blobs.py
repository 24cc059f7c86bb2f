"""Blobs: whole or absent, whoever dies when; and never at a path that a digest made up."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.blobs import BlobStore, LocalBlobs
from model_store.errors import BlobMissing

_: type[BlobStore] = LocalBlobs

CONTENT = b"weights " * 300_000
"""More than one chunk."""
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PACKABLE = b"weights " * 12_000


@pytest.fixture
def blobs(tmp_path):
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_what_was_put_can_be_read_by_its_digest(blobs, file):
    assert blobs.put(file) == (DIGEST, len(CONTENT))
    with blobs.open(DIGEST) as stored:
        assert stored.read() == CONTENT
    assert file.read_bytes() == CONTENT
    assert blobs.size(DIGEST) == len(CONTENT)
    assert blobs.verify(DIGEST)
    assert list(blobs.digests()) == [DIGEST]


@pytest.mark.parametrize("data", [b"", b"x", CONTENT], ids=["empty", "short", "long"])
def test_bytes_can_be_put(blobs, data):
    digest = blobs.put_bytes(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert blobs.path(digest).read_bytes() == data


def test_blobs_lie_in_a_fan_out_and_cannot_be_written(blobs):
    path = blobs.path(blobs.put_bytes(CONTENT))
    assert path == blobs.root / "sha256" / DIGEST[:2] / DIGEST
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_file_can_be_taken_over_without_a_copy(blobs, file):
    inode = file.stat().st_ino
    assert blobs.adopt(file) == (DIGEST, len(CONTENT))
    assert not file.exists()
    assert blobs.path(DIGEST).stat().st_ino == inode
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o444


def test_a_file_with_another_name_is_copied_when_taken_over(blobs, file, tmp_path):
    """Whoever holds the other name could write to the blob."""
    os.link(file, tmp_path / "other")
    blobs.adopt(file)
    (tmp_path / "other").write_bytes(b"changed")
    assert blobs.verify(DIGEST)


def test_putting_twice_keeps_one_and_renews_its_age(blobs, file):
    blobs.put(file)
    os.utime(blobs.path(DIGEST), (1, 1))
    blobs.put(file)
    assert list(blobs.digests()) == [DIGEST]
    assert time.time() - blobs.added_at(DIGEST) < 60


def test_a_damaged_blob_is_noticed_and_healed_by_putting_it_again(blobs, file):
    blobs.put(file)
    path = blobs.path(DIGEST)
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert not blobs.verify(DIGEST)
    blobs.put(file)
    assert blobs.verify(DIGEST)


def test_a_reader_keeps_what_it_opened(blobs, file):
    blobs.put(file)
    with blobs.open(DIGEST) as stored:
        blobs.delete(DIGEST)
        assert stored.read() == CONTENT
    assert not blobs.exists(DIGEST)


def test_deleting_what_is_not_there_is_no_error(blobs):
    blobs.delete(DIGEST)


def test_a_missing_blob_is_said_to_be_missing(blobs):
    for verb in (blobs.path, blobs.open, blobs.verify, blobs.size, blobs.added_at):
        with pytest.raises(BlobMissing, match=DIGEST):
            verb(DIGEST)
    assert not blobs.exists(DIGEST)


@pytest.mark.parametrize(
    "digest",
    ["", "..", "../../etc/passwd", "/etc/passwd", DIGEST.upper(), DIGEST[:-1], DIGEST + "\n", DIGEST[:-3] + "/..",
     "a" * 10**6],
)  # fmt: skip
def test_what_is_no_digest_never_becomes_a_path(blobs, digest, tmp_path):
    with pytest.raises(BlobMissing, match="is not a sha256 digest") as missing:
        blobs.path(digest)
    assert len(str(missing.value)) < 300
    assert not blobs.exists(digest)
    (tmp_path / "keep").touch()
    blobs.delete(digest)
    assert (tmp_path / "keep").exists()


def test_files_of_other_names_are_not_listed(blobs, file):
    blobs.put(file)
    blobs.path(DIGEST).with_name("notes.txt").touch()
    (blobs.root / "sha256" / "stray").touch()
    assert list(blobs.digests()) == [DIGEST]


def test_an_error_while_writing_leaves_nothing(blobs, tmp_path, monkeypatch):
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        blobs.put_bytes(CONTENT)
    assert list(blobs.digests()) == [] and list((blobs.root / "incoming").iterdir()) == []


def test_sweeping_takes_old_leftovers_and_spares_running_writes(blobs):
    for name, age in (("old", 7200), ("running", 10)):
        left = blobs.root / "incoming" / name
        left.write_bytes(b"half")
        os.utime(left, (time.time() - age,) * 2)
    assert blobs.sweep(older_than_s=3600) == 1
    assert [left.name for left in (blobs.root / "incoming").iterdir()] == ["running"]


def test_the_file_is_durable_before_it_has_its_name_and_its_name_before_it_is_told(blobs, file, monkeypatch):
    """fsync(file), rename, fsync(folder): any other order loses data when the power goes."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(fd: int) -> None:
        target = Path(f"/proc/self/fd/{fd}").readlink()
        calls.append(f"fsync {target.parent.name if target.is_file() else target.name}")
        fsync(fd)

    def noted_replace(*args: object) -> None:
        calls.append("rename")
        replace(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    for put in (blobs.put, blobs.adopt):
        calls.clear()
        put(file)
        told = [call for call in calls if call != "fsync sha256"]  # the fan-out folder, made the first time
        assert told == ["fsync incoming", "rename", f"fsync {DIGEST[:2]}"]


@pytest.mark.parametrize("verb", ["put", "adopt"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_killed_at_any_call_leaves_the_blob_whole_or_absent(verb, when, tmp_path):
    """A real process, killed at each of its system calls in turn, until one run comes through alive."""
    for step in range(1, 60):
        root = tmp_path / str(step)
        file = tmp_path / "file"
        file.write_bytes(CONTENT)
        blobs = LocalBlobs(root)
        status = _run_and_die_at(step, when, lambda verb=verb, blobs=blobs, file=file: getattr(blobs, verb)(file))
        for found in LocalBlobs(root).digests():
            assert found == DIGEST and blobs.verify(found)
        if status == 0:
            assert blobs.exists(DIGEST)
            break
        assert status == signal.SIGKILL
        file.write_bytes(CONTENT)
        assert blobs.put(file)[0] == DIGEST and blobs.verify(DIGEST), "the next writer is not in its way"
        blobs.sweep(older_than_s=-1)
        assert list((root / "incoming").iterdir()) == []
    else:
        pytest.fail("the writer never finished")
    assert step > 5, "it was killed at every call before"


@pytest.mark.parametrize("verb", ["pack", "path"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_packer_killed_at_any_call_loses_nothing(verb, when, tmp_path):
    """`path` of a packed blob unpacks it: there too the blob is whole at every moment, in one form or the other."""
    for step in range(1, 60):
        blobs = LocalBlobs(tmp_path / str(step))
        digest = blobs.put_bytes(PACKABLE)
        if verb == "path":
            blobs.pack(digest)
        status = _run_and_die_at(step, when, lambda blobs=blobs, digest=digest: getattr(blobs, verb)(digest))
        assert list(blobs.digests()) == [digest] and blobs.verify(digest)
        with blobs.open(digest) as stored:
            assert stored.read() == PACKABLE
        assert blobs.pack(digest).plain is None and blobs.path(digest).read_bytes() == PACKABLE
        blobs.sweep(older_than_s=-1)
        assert list((blobs.root / "incoming").iterdir()) == []
        if status == 0:
            break
        assert status == signal.SIGKILL
    else:
        pytest.fail("the packer never finished")
    assert step > 4, "it was killed at every call before"


def test_readers_never_see_a_part_while_many_write(blobs, file):
    stop, torn = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            if blobs.exists(DIGEST) and not blobs.verify(DIGEST):
                torn.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=lambda: [blobs.put(file) for _ in range(5)]) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    assert not torn
    assert list(blobs.digests()) == [DIGEST] and list((blobs.root / "incoming").iterdir()) == []


def _run_and_die_at(step: int, when: str, work: Callable[[], object]) -> int:
    """Run `work` in a child that kills itself before or after the `step`-th call that touches the disk."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def deadly(call: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*args: object, **options: object) -> object:
                nonlocal count
                count += 1
                if count == step and when == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*args, **options)
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapped

        for name in ("open", "write", "fsync", "replace", "rename", "mkdir", "fchmod", "utime", "unlink", "close"):
            setattr(os, name, deadly(getattr(os, name)))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) * -1

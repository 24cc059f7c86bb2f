"""Immutable bytes by their sha256: durable before anybody can name them, complete or absent, never half.

Layout: `root/sha256/ab/abcdef...` (read-only files) and `root/incoming/` (same file system, so that the last step is
one rename). Order of a `put`: write and hash, fsync the file, rename, fsync the folder. A crash at any point leaves
either nothing but a file in `incoming/`, which `sweep` removes, or the whole blob.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from model_store.entities import Digest
from model_store.errors import BlobMissing

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK = 1 << 20


class BlobStore(Protocol):
    """Where bytes live. Every verb is safe to repeat; a digest that is no digest is simply missing."""

    def put(self, file: Path) -> tuple[Digest, int]: ...

    def put_bytes(self, data: bytes) -> Digest: ...

    def open(self, digest: Digest) -> io.BufferedReader: ...

    def exists(self, digest: Digest) -> bool: ...

    def delete(self, digest: Digest) -> None: ...

    def digests(self) -> Iterator[Digest]: ...

    def verify(self, digest: Digest) -> bool: ...


class LocalBlobs:
    """Blobs in a local folder. Any number of processes may use the same folder at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "sha256"
        self._incoming = root / "incoming"
        for folder in (root, self._blobs, self._incoming):
            _make_durable(folder)

    def put(self, file: Path) -> tuple[Digest, int]:
        """Copy a file in and return (digest, size in bytes), durable. A blob that is there already is written anew."""
        with file.open("rb") as source:
            return self._write(lambda: source.read(_CHUNK))

    def put_bytes(self, data: bytes) -> Digest:
        view = memoryview(data)
        chunks = iter([view[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)])
        return self._write(lambda: next(chunks, b""))[0]

    def adopt(self, file: Path) -> tuple[Digest, int]:
        """Take a file over instead of copying it, where it lies on the same file system; otherwise like `put`.

        For files this process made and nobody else holds open: afterwards `file` is gone.
        """
        if file.stat().st_dev != self._incoming.stat().st_dev or file.stat().st_nlink != 1:
            added = self.put(file)
            file.unlink()
            return added
        incoming = self._incoming / secrets.token_hex(16)
        os.utime(file)
        file.rename(incoming)
        with incoming.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            os.fchmod(source.fileno(), 0o444)
            os.fsync(source.fileno())
        self._publish(incoming, digest)
        return digest, size

    def path(self, digest: Digest) -> Path:
        """Where the blob lies. Raises BlobMissing, also for a text that is no digest: it never becomes a path."""
        if not _DIGEST.match(digest):
            raise BlobMissing(f"{digest[:80]!r} is not a sha256 digest (64 lower-case hexadecimal characters)")
        path = self._place(digest)
        if not path.is_file():
            raise BlobMissing(f"blob {digest} is not in the store")
        return path

    def open(self, digest: Digest) -> io.BufferedReader:
        return self.path(digest).open("rb")

    def exists(self, digest: Digest) -> bool:
        return bool(_DIGEST.match(digest)) and self._place(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Size in bytes. Raises BlobMissing."""
        return self.path(digest).stat().st_size

    def added_at(self, digest: Digest) -> float:
        """POSIX seconds of the last `put` of these bytes: what a collector's grace period counts from."""
        return self.path(digest).stat().st_mtime

    def delete(self, digest: Digest) -> None:
        """Remove the blob; nothing happens when it is not there. The row that named it must be gone already."""
        if _DIGEST.match(digest):
            self._place(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[Digest]:
        """Every blob, in no order. Files of other names are not ours and not listed."""
        for folder in self._blobs.iterdir():
            if folder.is_dir():
                yield from (entry.name for entry in folder.iterdir() if _DIGEST.match(entry.name))

    def verify(self, digest: Digest) -> bool:
        """Read the whole blob and say whether it still is what its name says. Raises BlobMissing."""
        with self.open(digest) as source:
            return hashlib.file_digest(source, "sha256").hexdigest() == digest

    def sweep(self, older_than_s: float) -> int:
        """Remove what crashed writers left behind; returns how many. The age must exceed any running write."""
        before, removed = time.time() - older_than_s, 0
        for entry in self._incoming.iterdir():
            try:
                if entry.stat().st_mtime < before:
                    entry.unlink()
                    removed += 1
            except FileNotFoundError:  # its writer has just published it
                continue
        return removed

    def _place(self, digest: Digest) -> Path:
        return self._blobs / digest[:2] / digest

    def _write(self, read: Callable[[], bytes | memoryview]) -> tuple[Digest, int]:
        incoming = self._incoming / secrets.token_hex(16)
        fd = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            hashed, size = hashlib.sha256(), 0
            try:
                while chunk := read():
                    hashed.update(chunk)
                    _write_all(fd, chunk)
                    size += len(chunk)
                os.fsync(fd)
            finally:
                os.close(fd)
            digest = hashed.hexdigest()
            self._publish(incoming, digest)
        except BaseException:
            incoming.unlink(missing_ok=True)
            raise
        return digest, size

    def _publish(self, incoming: Path, digest: Digest) -> None:
        place = self._place(digest)
        _make_durable(place.parent)
        # Replacing what is there rather than keeping it renews its age (a collector must not take bytes whose row is
        # about to be written) and heals a damaged blob; readers of the old file keep it.
        incoming.replace(place)
        _sync_folder(place.parent)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _make_durable(folder: Path) -> None:
    if not folder.is_dir():
        _make_durable(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

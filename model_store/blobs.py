"""Immutable bytes by their sha256: durable before anybody can name them, complete or absent, never half.

Layout: `root/sha256/ab/abcdef...` (read-only files) and `root/incoming/` (same file system, so that the last step is
one rename). Order of a `put`: write and hash, fsync the file, rename, fsync the folder. A crash at any point leaves
either nothing but a file in `incoming/`, which `sweep` removes, or the whole blob.

A blob that is seldom opened may lie packed instead (`abcdef....packed`, see model_store.packing). Its name stays the
sha256 of the *plain* bytes. `pack` makes the packed file durable and reads it back before the plain one goes; `path`
brings the plain one back, checked, for whoever must open or map it: beside a packed twin a plain file is only a copy,
which `trim` removes again. So every verb works on either, and a reader never knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from model_store import packed as packed_files
from model_store.durable import make_durable, sync_folder, write_all
from model_store.entities import Digest
from model_store.errors import BlobMissing
from model_store.packing import Damaged

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
            make_durable(folder)

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
        """Where the plain bytes lie, unpacked first if need be. Raises BlobMissing, also for a text that is no digest
        (it never becomes a path) and for a packed blob that is damaged."""
        plain, packed = self._places(digest)
        try:
            os.utime(plain, ns=(time.time_ns(), plain.stat().st_mtime_ns))  # in use now; as old as before
        except PermissionError:
            pass
        except FileNotFoundError:
            self._unpack(digest, packed, plain)
        return plain

    def open(self, digest: Digest) -> io.BufferedReader:
        """The plain bytes, to be read once from the start; a packed blob stays packed. Raises BlobMissing."""
        plain, packed = self._places(digest)
        try:
            return plain.open("rb")
        except FileNotFoundError:
            pass
        try:
            return io.BufferedReader(packed_files.Unpacking(packed), _CHUNK)
        except FileNotFoundError:
            raise _missing(digest) from None

    def exists(self, digest: Digest) -> bool:
        return bool(_DIGEST.match(digest)) and any(place.is_file() for place in self._places(digest))

    def size(self, digest: Digest) -> int:
        """Size of the plain bytes. Raises BlobMissing."""
        plain, packed = self._places(digest)
        try:
            return plain.stat().st_size
        except FileNotFoundError:
            pass
        try:
            return packed_files.plain_size(packed)
        except (FileNotFoundError, Damaged):
            raise _missing(digest) from None

    def footprint(self, digest: Digest) -> packed_files.Footprint:
        """What it takes on disk. Raises BlobMissing."""
        sizes = packed_files.Footprint(*(_size(place) for place in self._places(digest)))
        if sizes == (None, None):
            raise _missing(digest)
        return sizes

    def added_at(self, digest: Digest) -> float:
        """POSIX seconds of the last `put` of these bytes: what a collector's grace period counts from."""
        times = [stat.st_mtime for place in self._places(digest) if (stat := _stat(place)) is not None]
        if not times:
            raise _missing(digest)
        return max(times)

    def delete(self, digest: Digest) -> None:
        """Remove the blob; nothing happens when it is not there. The row that named it must be gone already."""
        if _DIGEST.match(digest):
            for place in self._places(digest):
                place.unlink(missing_ok=True)

    def digests(self) -> Iterator[Digest]:
        """Every blob, in no order. Files of other names are not ours and not listed."""
        for folder in self._blobs.iterdir():
            if folder.is_dir():
                names = {entry.name.removesuffix(packed_files.SUFFIX) for entry in folder.iterdir()}
                yield from (name for name in names if _DIGEST.match(name))

    def verify(self, digest: Digest) -> bool:
        """Read the whole blob and say whether it still is what its name says. Raises BlobMissing.

        Of a plain file and its packed twin one whole one is enough: the damaged one is removed.
        """
        there = [place for place in self._places(digest) if place.is_file()]
        if not there:
            raise _missing(digest)
        whole = {place for place in there if packed_files.digest_of(place) == digest}
        for place in there:
            if whole and place not in whole:
                place.unlink(missing_ok=True)
        return bool(whole)

    def pack(self, digest: Digest, *, keep_plain: bool = False) -> packed_files.Footprint:
        """Keep the blob packed where that pays; `keep_plain`: and the plain file too, as a copy. Raises BlobMissing.

        Not for what somebody is about to open: a path that was handed out before leads nowhere afterwards.
        """
        plain, packed = self._places(digest)
        if not packed.is_file() and self.size(digest) >= packed_files.LEAST_BYTES:
            self._pack(digest, plain, packed)
        if packed.is_file() and not keep_plain:
            plain.unlink(missing_ok=True)
        return self.footprint(digest)

    def unused_for_s(self, digest: Digest) -> float:
        """Seconds since the plain file was written or its path was last asked for. Raises BlobMissing."""
        stat = _stat(self._places(digest)[0]) or _stat(self._places(digest)[1])
        if stat is None:
            raise _missing(digest)
        return time.time() - max(stat.st_mtime, stat.st_atime)

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

    def _places(self, digest: Digest) -> tuple[Path, Path]:
        """Where its plain bytes lie and where its packed ones, if they do. Raises BlobMissing for no digest."""
        if not _DIGEST.match(digest):
            raise BlobMissing(f"{digest[:80]!r} is not a sha256 digest (64 lower-case hexadecimal characters)")
        plain = self._place(digest)
        return plain, plain.with_name(digest + packed_files.SUFFIX)

    def _pack(self, digest: Digest, plain: Path, packed: Path) -> None:
        with self._making(packed_files.SUFFIX) as incoming:
            if not packed_files.write(plain, incoming):
                return
            if packed_files.digest_of(incoming) != digest:
                raise BlobMissing(f"blob {digest} is damaged: it does not read back as its name says")
            added = plain.stat().st_mtime_ns
            os.utime(incoming, ns=(added, added))
            incoming.replace(packed)
            sync_folder(packed.parent)

    def _unpack(self, digest: Digest, packed: Path, plain: Path) -> None:
        """Bring the plain file back beside its packed twin, as durable as any: who finds it trusts it."""
        with self._making() as incoming:
            try:
                added = packed.stat().st_mtime_ns
                if packed_files.restore(packed, incoming) != digest:
                    raise Damaged("its digest is another")
            except FileNotFoundError:
                if not plain.is_file():  # else it was put again meanwhile
                    raise _missing(digest) from None
                return
            except Damaged as exc:
                raise BlobMissing(f"blob {digest} cannot be unpacked: {exc}") from exc
            os.utime(incoming, ns=(time.time_ns(), added))
            incoming.replace(plain)
            sync_folder(plain.parent)

    @contextlib.contextmanager
    def _making(self, suffix: str = "") -> Iterator[Path]:
        """A name in `incoming/` for a new file; what still lies there afterwards is removed."""
        incoming = self._incoming / (secrets.token_hex(16) + suffix)
        try:
            yield incoming
        finally:
            incoming.unlink(missing_ok=True)

    def _write(self, read: Callable[[], bytes | memoryview]) -> tuple[Digest, int]:
        incoming = self._incoming / secrets.token_hex(16)
        fd = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            hashed, size = hashlib.sha256(), 0
            try:
                while chunk := read():
                    hashed.update(chunk)
                    write_all(fd, chunk)
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
        make_durable(place.parent)
        # Replacing what is there rather than keeping it renews its age (a collector must not take bytes whose row is
        # about to be written) and heals a damaged blob; readers of the old file keep it.
        incoming.replace(place)
        sync_folder(place.parent)
        place.with_name(digest + packed_files.SUFFIX).unlink(
            missing_ok=True
        )  # it may be damaged; what was put is whole


def _missing(digest: Digest) -> BlobMissing:
    return BlobMissing(f"blob {digest} is not in the store")


def _stat(place: Path) -> os.stat_result | None:
    try:
        return place.stat()
    except FileNotFoundError:
        return None


def _size(place: Path) -> int | None:
    stat = _stat(place)
    return None if stat is None else stat.st_size

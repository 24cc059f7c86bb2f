"""Packed files on disk: written, read back, and read as the stream of the plain bytes they stand for."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from model_store import packing
from model_store.packing import Damaged

SUFFIX = ".packed"

LEAST_BYTES = 64 << 10
"""Of the smallest file that packing is tried on."""
LEAST_SAVED = 0.1
"""Share of its bytes that packing must save to be kept."""

_CHUNK = 1 << 20


class Footprint(NamedTuple):
    """Bytes on disk: of the plain file, and of the packed one; None where it is not there."""

    plain: int | None
    packed: int | None

    @property
    def kept(self) -> int:
        """What the blob takes for good; a plain copy beside a packed file comes and goes."""
        return self.packed if self.packed is not None else self.plain or 0


class Unpacking(io.RawIOBase):
    """A packed file as a stream of its plain bytes."""

    def __init__(self, place: Path) -> None:
        """Raises FileNotFoundError."""
        self._packed = place.open("rb")
        self._blocks = packing.unpack(self._packed)
        self._block = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._block:
            try:
                self._block = memoryview(next(self._blocks, b""))
            except Damaged as exc:
                raise OSError(f"a packed blob is damaged: {exc}") from exc
        taken = min(len(self._block), len(buffer))
        buffer[:taken] = self._block[:taken]
        self._block = self._block[taken:]
        return taken

    def close(self) -> None:
        self._packed.close()
        super().close()


def write(plain: Path, incoming: Path) -> bool:
    """Pack `plain` into the new file `incoming`, durable; whether that pays. Raises FileNotFoundError."""
    with plain.open("rb") as source, incoming.open("xb") as target:
        size = os.fstat(source.fileno()).st_size
        written = packing.pack(source.read, size, target.write)
        _settle(target)
    return written <= (1 - LEAST_SAVED) * size


def restore(packed: Path, incoming: Path) -> str:
    """Unpack into the new file `incoming`, durable; the digest of what came out. Raises Damaged, FileNotFoundError."""
    hashed = hashlib.sha256()
    with packed.open("rb") as source, incoming.open("xb") as target:
        for block in packing.unpack(source):
            hashed.update(block)
            target.write(block)
        _settle(target)
    return hashed.hexdigest()


def digest_of(place: Path) -> str | None:
    """sha256 of the plain bytes of a file, packed or not; None where it is gone or cannot be unpacked."""
    hashed = hashlib.sha256()
    try:
        with place.open("rb") as file:
            for block in packing.unpack(file) if place.suffix == SUFFIX else _chunks(file):
                hashed.update(block)
    except (Damaged, FileNotFoundError):
        return None
    return hashed.hexdigest()


def plain_size(place: Path) -> int:
    """Raises Damaged, FileNotFoundError."""
    with place.open("rb") as file:
        return packing.plain_size(file)


def _chunks(file: io.BufferedReader) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _settle(target: io.BufferedWriter) -> None:
    target.flush()
    os.fchmod(target.fileno(), 0o444)
    os.fsync(target.fileno())

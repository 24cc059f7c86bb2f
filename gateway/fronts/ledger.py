"""The counts of one front, in shared memory that the primary owns: not lost when the front is killed, never sent.

A ledger is a list of records that only grows, each a key and the numbers counted for it. The front adds records and
counts in place; the primary reads the same numbers whenever somebody asks. What a front had counted when it died, to
the last answer it sent, is still there.

    word 0  bytes in use: written last when a record is added, so a reader never meets half of one
    word 1  changes of which records there are
    then    records: I bytes, I bytes of key, I numbers, I dropped (0 or 1), key (JSON, padded to 8), q numbers

There is one writer. Numbers are whole 64-bit words, which no CPU that runs this tears.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from collections.abc import MutableSequence
from typing import NamedTuple, cast

import msgspec

from gateway.counts import Counts, OwnCells
from gateway.logs import event
from gateway.statistics import Failure, Key, Statistics

LEDGER_BYTES = 64 << 20
"""Room for the counts of more than ten thousand variants; memory is used only for those there are."""

_WORD = 8
_FIRST = 2 * _WORD
_HEAD = struct.Struct("<IIII")
_USED, _CHANGES = 0, 1


class _Record(NamedTuple):
    kind: str
    key: tuple[str | int, ...]
    dropped_at: int
    cells: MutableSequence[int]


class Ledger:
    """`fd`: the memory, to be handed to the other process. It is shared by everybody who maps it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("q")
        self._records: list[_Record] = []
        self._read_to, self._read_changes = _FIRST, -1
        self._statistics = Statistics()

    @classmethod
    def create(cls, nbytes: int = LEDGER_BYTES) -> Ledger:
        """An empty one. `nbytes`: a multiple of 8; pages that were never written cost nothing."""
        fd = os.memfd_create("forgeway-counts", os.MFD_CLOEXEC)
        os.ftruncate(fd, nbytes)
        ledger = cls(fd)
        ledger._words[_USED] = _FIRST
        return ledger

    def take(self, kind: str, key: tuple[str | int, ...], count: int) -> MutableSequence[int]:
        """Add a record. When there is no room, the numbers stay in this process and are told nobody."""
        name = msgspec.json.encode((kind, *key))
        at = self._words[_USED]
        padded = -(-len(name) // _WORD) * _WORD
        end = at + _HEAD.size + padded + count * _WORD
        if end > len(self._bytes):
            event(logging.ERROR, "counts lost", reason=f"the ledger of {len(self._bytes)} bytes is full", kind=kind)
            return OwnCells().take(kind, key, count)
        _HEAD.pack_into(self._bytes, at, end - at, len(name), count, 0)
        self._bytes[at + _HEAD.size : at + _HEAD.size + len(name)] = name
        record = self._record_at(at)
        self._records.append(record)
        self._words[_USED] = self._read_to = end
        self._words[_CHANGES] += 1
        return record.cells

    def drop(self, model: str, version: str) -> None:
        """What was counted for a version that is gone shall not be read any more. Its room is not used again."""
        dropped = [record for record in self._records if record.key[:2] == (model, version)]
        for record in dropped:
            self._words[record.dropped_at] |= 1 << 32
        if dropped:
            self._records = [record for record in self._records if record.key[:2] != (model, version)]
            self._words[_CHANGES] += 1

    def statistics(self) -> Statistics:
        """What is counted here, as it is read: the numbers go on changing."""
        changes = self._words[_CHANGES]
        if changes != self._read_changes:
            self._statistics = self._read()
            self._read_changes = changes
        return self._statistics

    def close(self) -> None:
        """Give up the descriptor. The memory goes with the last number that somebody holds."""
        os.close(self.fd)

    def _read(self) -> Statistics:
        used = self._words[_USED]
        while self._read_to < used:
            self._records.append(self._record_at(self._read_to))
            self._read_to += _HEAD.unpack_from(self._bytes, self._read_to)[0]
        self._records = [record for record in self._records if not self._words[record.dropped_at] >> 32]
        return _statistics_of(self._records)

    def _record_at(self, at: int) -> _Record:
        size, length, count, _ = _HEAD.unpack_from(self._bytes, at)
        kind, *key = msgspec.json.decode(self._bytes[at + _HEAD.size : at + _HEAD.size + length])
        first = (at + size) // _WORD - count
        cells = cast("MutableSequence[int]", self._words[first : first + count])
        return _Record(kind, tuple(key), at // _WORD + 1, cells)


class _Found:
    """The cells of records that are there already, for who builds counts upon them."""

    def __init__(self, records: list[_Record]) -> None:
        self._cells = {(record.kind, record.key): record.cells for record in records}

    def take(self, kind: str, key: tuple[str | int, ...], count: int) -> MutableSequence[int]:
        return self._cells.get((kind, key)) or [0] * count

    def drop(self, model: str, version: str) -> None:
        raise AssertionError("a reading drops nothing")


def _statistics_of(records: list[_Record]) -> Statistics:
    found = _Found(records)
    statistics = Statistics(cells=found)
    for kind, key, _, cells in records:
        match kind, key:
            case "sums", (str(model), str(version), str(variant), str(target)):
                statistics.by_variant[Key(model, version, variant, target)] = Counts(found, key)
            case "failure", (str(model), str(version), int(code), str(reason)):
                statistics.failures[Failure(model, version, code, reason)] = cells
            case "event", (str(what), str(label)):
                statistics.events[what, label] = cells
    for kind, key, _, cells in records:
        match kind, key:
            case "batch", (str(model), str(version), str(variant), str(target), int(rows)):
                statistics.by_variant[Key(model, version, variant, target)].batches[rows] = cells
            case "why", (str(model), str(version), str(variant), str(target), str(why)):
                statistics.by_variant[Key(model, version, variant, target)].why[why] = cells
    return statistics

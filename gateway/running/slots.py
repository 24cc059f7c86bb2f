"""Shared memory of one runner: an anonymous memfd cut into slots, each holding one batch (inputs, then outputs).

Nothing about it has a name: the file descriptor is handed to the child at exec, so nobody else can open it and nothing
is left behind after `kill -9`. Slots are sparse: a page costs memory only once a batch touched it, and pages that only
an unusually large batch needed are given back (`SlotMemory.trim`).

The memfd is sealed against resizing: a runner that shrank it would otherwise kill the gateway with SIGBUS.

Behind the slots lies a page of marks, one 64-bit word a slot: since when its batch runs (monotonic ns; negative: it has
run; 0: it waits). The runner writes them, and they outlive it: what it was doing when it died is known, not guessed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

ALIGNMENT = 64
"""Tensors begin at multiples of a cache line, which also satisfies every vector load."""

_KEEP_BYTES = 1 << 20
_MARKS_BYTES = mmap.PAGESIZE


class SlotMemory:
    """`count` slots of `slot_bytes` each. The gateway creates one per runner; the runner attaches to it."""

    def __init__(self, fd: int, count: int, slot_bytes: int) -> None:
        self.fd = fd
        self.count = count
        self.slot_bytes = slot_bytes
        self._map = mmap.mmap(fd, count * slot_bytes + _MARKS_BYTES)
        whole = memoryview(self._map)
        self.slots = [whole[i * slot_bytes : (i + 1) * slot_bytes] for i in range(count)]
        self.marks = whole[count * slot_bytes :].cast("q")
        whole.release()
        self._touched = [0] * count
        self._recent = [0] * count
        self._before = [0] * count

    @classmethod
    def create(cls, count: int, slot_bytes: int) -> SlotMemory:
        """New sealed shared memory. `slot_bytes` is rounded up to whole pages."""
        slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = os.memfd_create("forgeway-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, count * slot_bytes + _MARKS_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return cls(fd, count, slot_bytes)

    def used(self, slot: int, nbytes: int) -> None:
        """Note that a batch reached `nbytes` into the slot."""
        if nbytes > self._recent[slot]:
            self._recent[slot] = nbytes
            if nbytes > self._touched[slot]:
                self._touched[slot] = nbytes

    def trim(self, free: list[int]) -> int:
        """Give back the pages of free slots that no batch needed since the call before last; the bytes given back.

        Called about once a second: batches that keep coming keep their pages, so steady load never faults them in
        again, and one huge batch does not cost its memory for ever.
        """
        given = 0
        for slot in free:
            keep = max(self._recent[slot], self._before[slot], _KEEP_BYTES)
            self._before[slot], self._recent[slot] = self._recent[slot], 0
            if self._touched[slot] > keep:
                start = aligned(keep, mmap.PAGESIZE)
                length = aligned(self._touched[slot], mmap.PAGESIZE) - start
                if length > 0:
                    self._map.madvise(mmap.MADV_REMOVE, slot * self.slot_bytes + start, length)
                    given += length
                self._touched[slot] = keep
        return given

    def close(self) -> None:
        for view in (*self.slots, self.marks):
            view.release()
        self._map.close()
        os.close(self.fd)


def begun_in(fd: int, count: int, slot_bytes: int) -> bool:
    """Whether the marks behind `count` slots say that a batch runs, or ran when the runner died."""
    marks = os.pread(fd, 8 * count, count * slot_bytes)
    return any(mark > 0 for mark in struct.unpack(f"{count}q", marks))


def aligned(offset: int, alignment: int = ALIGNMENT) -> int:
    """`offset` rounded up to a multiple of `alignment` (a power of two)."""
    return (offset + alignment - 1) & -alignment

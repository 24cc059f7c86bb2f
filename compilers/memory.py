"""Memory that a process holds and no longer needs, given back to the operating system.

A runner idles most of its life. Opening a model leaves twice its size behind as free blocks that the allocator keeps;
asking for them back halves what an idle runner holds.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import numpy as np

_M_MMAP_THRESHOLD = -3


def give_back_free_blocks() -> None:
    """Return the allocator's free pages to the system (glibc's malloc_trim; elsewhere nothing happens)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def return_large_blocks() -> None:
    """From now on a block of a megabyte or more goes back to the system the moment it is freed (glibc's mallopt).

    Otherwise glibc raises that bar to the largest block that was ever freed, up to 32 MB, and what is freed between two
    blocks in use stays. A process that computes activations run after run then holds a few times what it needs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)


class MappedFile:
    """A file's bytes as a writable array that is private to this process: pages are read when touched.

    The array must not be used once its MappedFile is gone.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            empty = path.stat().st_size == 0
            self._map = mmap.mmap(-1, 1) if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.array = np.frombuffer(self._map, dtype=np.uint8, count=0 if empty else -1)

    def forget(self) -> None:
        """Drop the pages read so far; a later touch reads them again."""
        self._map.madvise(mmap.MADV_DONTNEED)

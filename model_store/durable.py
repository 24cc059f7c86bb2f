"""What it takes that a file or a folder outlives a power cut: writing alone leaves it to the kernel's leisure."""

from __future__ import annotations

import os
from pathlib import Path


def write_all(fd: int, data: bytes | memoryview) -> None:
    """All of `data`, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def make_durable(folder: Path) -> None:
    """The folder, and those it lies in, made if need be: still there after a power cut."""
    if not folder.is_dir():
        make_durable(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """The names in a folder, as they are now: still there after a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

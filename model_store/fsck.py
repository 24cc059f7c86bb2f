"""Do rows and blobs agree? Every blob that a row names is there and whole; what no row names is counted, and removed
on request once it is older than any upload or compilation that might still be about to name it.

Safe to run beside a live gateway and worker: nothing younger than the grace period is touched, and a blob is removed
only after its rows were read again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from model_store.catalog import Reference
from model_store.entities import REFERENCE, Digest
from model_store.errors import BlobMissing, NotFound
from model_store.store import ModelStore

GRACE_S = 86_400.0
"""Longer than any upload or compile step takes from its first blob to its row."""

STEP_GRACE_S = 30 * 86_400.0
"""Results of steps that nobody asked for, and journals of searches not written to, in this time are dropped when
repairing."""


@dataclass(frozen=True, slots=True)
class FsckReport:
    """`problems` say what is damaged, in words; empty means clean. Leftovers of crashes are no problem: they are
    `unreferenced` (blobs past the grace period that no row names), and `removed` when repairing."""

    problems: tuple[str, ...]
    blobs: int
    rows: int
    removed: int
    unreferenced: int = 0

    @property
    def clean(self) -> bool:
        return not self.problems


def fsck(store: ModelStore, repair: bool = False, grace_s: float = GRACE_S) -> FsckReport:
    """Check everything, reading every blob once.

    With `repair`: leftovers are removed; a variant whose bytes are damaged is withdrawn and a step's result forgotten,
    so that compiling again makes them anew; a damaged file is removed, so that the same upload heals it.
    """
    removed = 0
    if repair:
        store.catalog.forget_steps(STEP_GRACE_S)
        removed += store.blobs.sweep(grace_s) + _sweep(store.work, grace_s) + _sweep(store.searches, STEP_GRACE_S)
    present = set(store.blobs.digests())  # before the rows: a blob that comes later is none of our business
    references = store.catalog.references()
    damaged = _damaged(store, references)
    problems = [
        f"{damaged[ref.digest]} blob {ref.digest}, named by {ref}" for ref in references if ref.digest in damaged
    ]
    problems += _rows_without_reference(store)
    if repair:
        _withdraw(store, [ref for ref in references if ref.digest in damaged])
        for digest in damaged:
            store.blobs.delete(digest)
    unreferenced = _past_grace(store, present - {ref.digest for ref in references}, grace_s)
    if repair and unreferenced:
        unreferenced -= store.catalog.live_blobs()
        for digest in _past_grace(store, unreferenced, grace_s):
            store.blobs.delete(digest)
            removed += 1
    return FsckReport(tuple(problems), len(present), len(references), removed, len(unreferenced))


def _damaged(store: ModelStore, references: Iterable[Reference]) -> dict[Digest, str]:
    """Named blobs that are not there or not what their name says -> which of the two."""
    damaged = {}
    for digest in {ref.digest for ref in references}:
        try:
            if not store.blobs.verify(digest):
                damaged[digest] = "corrupt"
        except BlobMissing:
            damaged[digest] = "missing"
    # A version may have been deleted, and its blobs collected, since the rows were read.
    live = store.catalog.live_blobs() if damaged else set()
    return {digest: how for digest, how in damaged.items() if digest in live}


def _rows_without_reference(store: ModelStore) -> list[str]:
    return [
        f"version {version.name}/{version.version} is {version.status} without a reference variant"
        for version, variants in store.catalog.serving()
        if not any(variant.id == REFERENCE for variant in variants)
    ]


def _withdraw(store: ModelStore, damaged: Iterable[Reference]) -> None:
    for ref in damaged:
        if ref.what == "step":
            store.catalog.forget_step(ref.row[0])
        elif ref.what == "variant" and ref.row[2] != REFERENCE:
            name, version, variant = ref.row
            why = f"its bytes were damaged on disk (blob {ref.digest}); compile again"
            try:
                store.catalog.withdraw(name, version, variant, why)
            except NotFound:  # deleted meanwhile
                continue


def _past_grace(store: ModelStore, digests: Iterable[Digest], grace_s: float) -> set[Digest]:
    before, old = time.time() - grace_s, set()
    for digest in digests:
        try:
            if store.blobs.added_at(digest) <= before:
                old.add(digest)
        except BlobMissing:
            continue
    return old


def _sweep(folder: Path, grace_s: float) -> int:
    """Remove what was not written for that long: work a crash left behind, journals of searches long ended."""
    before, removed = time.time() - grace_s, 0
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.lstat().st_mtime > before:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
        removed += 1
    return removed

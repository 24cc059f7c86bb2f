"""What nobody opens need not lie plain: blobs out of use are packed, and plain copies of packed ones are bounded.

Kept plain: what answers (the model of every answering version, the files of its serving variants), since a runner may
map it at any moment. Everything else (rejected and merely eligible variants, samples, results of steps kept for a twin
or a crash) is packed once it has lain unused for a while; whoever needs it after all gets it unpacked and checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model_store.entities import Digest, Verdict
from model_store.errors import BlobMissing
from model_store.store import ModelStore

UNUSED_S = 3600.0
"""A step that was handed a path opens it within seconds; a job that was interrupted comes back within minutes."""
MOST_COPIES_BYTES = 4 << 30
"""Plain copies of packed blobs: what was brought back for a variant that answers after all."""


@dataclass(frozen=True, slots=True)
class Saved:
    """`before` and `after`: bytes on disk of the `blobs` that were packed; `dropped`: plain copies removed."""

    blobs: int
    before: int
    after: int
    dropped: int


def pack_cold(
    store: ModelStore,
    unused_s: float = UNUSED_S,
    most_copies_bytes: int = MOST_COPIES_BYTES,
    stopped: Callable[[], bool] = lambda: False,
) -> Saved:
    """Pack what has lain unused, then bound the copies. Safe beside a live gateway and worker; ends early when asked.

    A blob on which packing does not pay is tried again by the next process; nothing is written for it.
    """
    warm, blobs, before, after = _answering(store), 0, 0, 0
    for digest in list(store.blobs.digests()):
        if stopped():
            break
        try:
            plain, packed = store.blobs.footprint(digest)
            if digest in warm or plain is None or store.blobs.unused_for_s(digest) < unused_s:
                continue
            if packed is None and (kept := store.blobs.pack(digest)).packed is not None:
                blobs, before, after = blobs + 1, before + plain, after + kept.packed
        except BlobMissing:  # collected meanwhile, or damaged: fsck tells of it
            continue
    return Saved(blobs, before, after, _trim(store, most_copies_bytes, unused_s))


def _answering(store: ModelStore) -> set[Digest]:
    warm: set[Digest] = set()
    for version, variants in store.catalog.serving():
        warm.add(version.model)
        for variant in variants:
            if variant.verdict is Verdict.SERVING and variant.artifact is not None:
                warm.update(variant.artifact.files.values())
    return warm


def _trim(store: ModelStore, most_bytes: int, unused_s: float) -> int:
    """Drop the longest unused copies until the rest take at most `most_bytes`, but none used in `unused_s`."""
    copies = []
    for digest in list(store.blobs.digests()):
        try:
            plain, packed = store.blobs.footprint(digest)
            if plain is not None and packed is not None:
                copies.append((store.blobs.unused_for_s(digest), plain, digest))
        except BlobMissing:
            continue
    total, dropped = sum(size for _, size, _ in copies), 0
    for unused, size, digest in sorted(copies, reverse=True):
        if total <= most_bytes or unused < unused_s:
            break
        store.blobs.pack(digest)
        total, dropped = total - size, dropped + 1
    return dropped

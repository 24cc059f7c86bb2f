"""How an artifact is kept: most lie as a runtime opens them; what was made to be small is packed at once."""

from __future__ import annotations

from dataclasses import replace

from compilers.recipe import Recipe
from model_store.blobs import LocalBlobs
from model_store.entities import Artifact

FOR_STORAGE = frozenset({"log"})
"""Techniques that save nothing but bytes; other artifacts are packed once they are out of use (model_store.cold)."""


def keep(artifact: Artifact, recipe: Recipe, blobs: LocalBlobs) -> Artifact:
    """The artifact with what it takes packed. Its plain files stay as copies: it is about to be opened."""
    if FOR_STORAGE.isdisjoint(recipe.techniques):
        return artifact
    stored = sum(blobs.pack(digest, keep_plain=True).kept for digest in artifact.files.values())
    return replace(artifact, stored_bytes=stored)

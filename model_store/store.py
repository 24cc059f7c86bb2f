"""The store: blobs and catalog in one data folder, and the walk that registers a model.

    DATA/catalog.db     the catalog, unless a database URL names another place
    DATA/blobs/         bytes by sha256
    DATA/work/          what is being worked on; anything old in it was left by a crash
    DATA/searches/      journals of searches for recipes, so that a killed one goes on

Blobs are durable first, rows come last and at once: a crash between the two leaves bytes that nothing names, which
`fsck` finds, and never a row without its bytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from model_store.blobs import LocalBlobs
from model_store.catalog import Catalog
from model_store.entities import Artifact, Job, ModelVersion, Signature
from model_store.expression import Expression
from model_store.intake import admit, check_samples
from model_store.names import valid_name
from model_store.policy import InvalidPolicy, Policy, parse_policy


class ModelStore:
    """Safe to share between threads and, by opening it in each, between processes."""

    def __init__(self, blobs: LocalBlobs, catalog: Catalog, work: Path) -> None:
        self.blobs = blobs
        self.catalog = catalog
        self.work = work
        self.searches = work.parent / "searches"

    @classmethod
    def open(cls, data: Path, database_url: str | None = None) -> ModelStore:
        """Open the store in `data`, made if need be, its catalog brought up to date. Raises StoreUnusable."""
        data = data.absolute()
        work = data / "work"
        work.mkdir(parents=True, exist_ok=True)
        blobs = LocalBlobs(data / "blobs")
        url = database_url or URL.create("sqlite", database=str(data / "catalog.db"))
        return cls(blobs, Catalog.connect(url), work)

    def register(
        self,
        name: str,
        upload: Path,
        *,
        samples: Path | None = None,
        policy: Mapping[str, Any] | None = None,
        targets: Sequence[str],
    ) -> tuple[ModelVersion, tuple[Job, ...]]:
        """Take a model in: check it, keep its bytes, then its version with one job per target the policy allows.

        The files at `upload` and `samples` stay the caller's. Nothing is kept when anything is refused.
        Raises InvalidName, InvalidPolicy, InvalidModel, InvalidSamples.
        """
        valid_name(name)
        asked = parse_policy(policy or {})
        chosen = _allowed(asked, targets)
        with tempfile.TemporaryDirectory(dir=self.work, prefix="register-") as folder:
            # Two folders: what reads the samples must not reach the model that was admitted before.
            admitted = admit(upload, Path(folder, "model"))
            _check_metric(asked, admitted.signature)
            if samples is not None:
                check_samples(samples, admitted.signature, Path(folder, "samples"))
            kept_samples = self.blobs.put(samples)[0] if samples is not None else None
            model, size_bytes = self.blobs.adopt(admitted.file)
        return self.catalog.register(
            name,
            model=model,
            size_bytes=size_bytes,
            signature=admitted.signature,
            samples=kept_samples,
            policy=asked.model_dump(mode="json", exclude_unset=True),
            targets=chosen,
            parameters=admitted.parameters,
            operators=admitted.operators,
        )

    def artifact_paths(self, artifact: Artifact) -> dict[str, Path]:
        """Artifact file name -> where its blob lies. Raises BlobMissing."""
        return {name: self.blobs.path(digest) for name, digest in artifact.files.items()}

    def close(self) -> None:
        self.catalog.close()


def _check_metric(policy: Policy, signature: Signature) -> None:
    """Raises InvalidPolicy when the policy's metric looks at outputs the model does not have."""
    if policy.gate.metric is None:
        return
    known = [spec.name for spec in signature.outputs]
    if unknown := sorted(Expression(policy.gate.metric.expression).outputs - set(known)):
        raise InvalidPolicy(
            f"policy gate.metric.expression: the model has no output {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(map(repr, known))}"
        )


def _allowed(policy: Policy, targets: Sequence[str]) -> tuple[str, ...]:
    """The targets to compile for: all there are, or those of them the policy names."""
    if policy.targets is None:
        return tuple(targets)
    unknown = [target for target in policy.targets if target not in targets]
    if unknown:
        raise InvalidPolicy(
            f"policy targets: this installation cannot build for {', '.join(map(repr, unknown))}; "
            f"it can for {', '.join(targets) or 'none'}"
        )
    return tuple(target for target in targets if target in policy.targets)

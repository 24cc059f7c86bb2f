"""The facts of a proof card, gathered from the catalog and the blobs: one frozen `Card`, of which page and JSON are two
readings. Nothing is worked out here that was not measured; what is not known is None and said to be so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed

from gateway.report.pareto import Plot, plots
from gateway.routing.ranking import rank, timing_in
from model_store.entities import Evidence, Job, JobState, ModelVersion, Timing, Variant
from model_store.errors import BlobMissing
from model_store.policy import Policy
from model_store.store import ModelStore

SCRIPT = "reproduce.sh"
"""The name under which an artifact keeps it."""

LONGEST_SCRIPT = 256 << 10
"""Bytes of a reproduce.sh that a card still shows whole."""


@dataclass(frozen=True, slots=True)
class Script:
    """What repeats every step of a variant. `text` is None where the script is gone or too long to show."""

    sha256: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Tried:
    """One variant. `stored_bytes`: what its files take on disk now; `answers`: batch sizes it was chosen for."""

    variant: Variant
    stored_bytes: int | None
    answers: tuple[int, ...]
    script: Script | None

    @property
    def evidence(self) -> Evidence:
        return self.variant.evidence or _NOTHING

    def timing(self, rows: int) -> Timing | None:
        return next((timing for timing in self.evidence.timings if timing.rows == rows), None)


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """The owner's samples. The split is that of the newest variant that was held against them."""

    sha256: str
    size_bytes: int | None
    count: int | None
    calibration: int | None
    validation: int | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who answers batches near `rows` rows by the evidence. `timing` is None before anything was measured there."""

    rows: int
    variant: str
    timing: Timing | None


@dataclass(frozen=True, slots=True)
class Card:
    version: ModelVersion
    aliases: tuple[str, ...]
    policy: Policy
    model_stored_bytes: int | None
    samples: SampleFacts | None
    tried: tuple[Tried, ...]
    chosen: tuple[Chosen, ...]
    plots: tuple[Plot, ...]
    open_jobs: tuple[Job, ...]
    """Jobs that have not ended: with any, this card is not the last word."""
    made_at: float
    forgeway: str

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of the model as uploaded: what its least changed variant counts."""
        known = [item for item in self.tried if item.evidence.macs is not None]
        plain = [item for item in known if set(item.variant.techniques) <= {"fusion"}]
        return next((item.evidence.macs for item in (*plain, *known)), None)

    @property
    def hardware(self) -> tuple[tuple[str, ...], ...]:
        """The machines that were measured on, each as sorted "key: value" texts; more than one after a move."""
        found = (tuple(sorted(f"{k}: {v}" for k, v in item.evidence.hardware.items())) for item in self.tried)
        return tuple(dict.fromkeys(facts for facts in found if facts))

    @property
    def tool_versions(self) -> tuple[tuple[str, ...], ...]:
        found = (tuple(sorted(f"{k} {v}" for k, v in item.evidence.versions.items())) for item in self.tried)
        return tuple(dict.fromkeys(facts for facts in found if facts))


_NOTHING = Evidence(agreement=None, timings=(), hardware={})


def gather(store: ModelStore, name: str, version: str) -> Card:
    """Everything about one version (a number or an alias), as of now. Raises NotFound."""
    catalog = store.catalog
    found = catalog.resolve(name, version)
    jobs = [job for state in (JobState.RUNNING, JobState.QUEUED) for job in reversed(catalog.jobs(name, state))]
    variants = catalog.variants(name, found.version)
    aliases = catalog.model(name).aliases
    policy = Policy.model_validate(found.policy)
    chosen = _chosen(variants, policy)
    answers = {item.id: tuple(c.rows for c in chosen if c.variant == item.id) for item in variants}
    return Card(
        version=found,
        aliases=tuple(sorted(alias for alias, number in aliases.items() if number == found.version)),
        policy=policy,
        model_stored_bytes=_stored(store, [found.model]),
        samples=_samples(store, found, variants),
        tried=tuple(Tried(item, _stored_of(store, item), answers[item.id], _script(store, item)) for item in variants),
        chosen=chosen,
        plots=plots(variants, {item.rows: item.variant for item in chosen}),
        open_jobs=tuple(job for job in jobs if job.version == found.version),
        made_at=time.time(),
        forgeway=installed("forgeway"),
    )


def _chosen(variants: Sequence[Variant], policy: Policy) -> tuple[Chosen, ...]:
    """By the evidence alone, as routing ranks it; a variant that fails to open here is routed around meanwhile."""
    buckets, ranked = rank(variants, policy.serve_unproven, objective=policy.objective)
    by_id = {item.id: item for item in variants}
    return tuple(
        Chosen(rows, ranked[rows][0], timing_in(by_id[ranked[rows][0]], rows)) for rows in buckets if ranked[rows]
    )


def _samples(store: ModelStore, version: ModelVersion, variants: Iterable[Variant]) -> SampleFacts | None:
    if version.samples is None:
        return None
    evidence = [item.evidence for item in reversed(tuple(variants)) if item.evidence is not None]
    split = next((item.calibration for item in evidence if item.calibration), {})
    validated = next((item.agreement.samples for item in evidence if item.agreement is not None), None)
    return SampleFacts(
        sha256=version.samples,
        size_bytes=_stored(store, [version.samples]),
        count=split.get("count"),
        calibration=split.get("calibration"),
        validation=split.get("validation", validated),
    )


def _stored_of(store: ModelStore, variant: Variant) -> int | None:
    if variant.artifact is None:
        return None
    return _stored(store, [digest for name, digest in variant.artifact.files.items() if name != SCRIPT])


def _stored(store: ModelStore, digests: Iterable[str]) -> int | None:
    """What blobs take for good; None when one of them is gone."""
    try:
        return sum(store.blobs.footprint(digest).kept for digest in digests)
    except BlobMissing:
        return None


def _script(store: ModelStore, variant: Variant) -> Script | None:
    digest = None if variant.artifact is None else variant.artifact.files.get(SCRIPT)
    if digest is None:
        return None
    try:
        if store.blobs.size(digest) > LONGEST_SCRIPT:
            return Script(digest, None)
        with store.blobs.open(digest) as file:
            return Script(digest, file.read().decode("utf-8", "replace"))
    except BlobMissing:
        return Script(digest, None)

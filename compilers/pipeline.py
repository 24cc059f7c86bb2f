"""The compile walk: a version becomes variants, each with a verdict and its reason in words.

Reads top to bottom as it happens; everything dangerous happens in the children of `isolate`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from compilers import hardware, walk, words
from compilers.isolate import Done, Isolation, StepFailed
from compilers.keeping import keep
from compilers.proving import gate, proof
from compilers.proving.gate import Finding
from compilers.recipe import Recipe
from compilers.stepkey import tool_versions
from compilers.timing import planning
from compilers.timing.measure import wins
from compilers.transforming import transform
from compilers.walk import Subject
from model_store.entities import (
    REFERENCE,
    Agreement,
    Artifact,
    Evidence,
    ModelVersion,
    Plan,
    Timing,
    Variant,
    Verdict,
)
from model_store.policy import Policy


@dataclass(frozen=True, slots=True)
class Rejected:
    """A variant that will not be: why, and what was learnt of it on the way."""

    verdict: Verdict
    reason: str
    artifact: Artifact | None = None
    agreement: Agreement | None = None
    parameters: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Fields of its Evidence (see compilers.proving.proof)."""


def publish_reference(version: ModelVersion, isolation: Isolation) -> Variant:
    """The uploaded model itself as a variant. Raises StepFailed when it does not run here."""
    probed = isolation.run(walk.probe(version), REFERENCE)
    p50, p90, p99 = (float(value) for value in np.percentile(probed.result["times_s"], (50, 90, 99)))
    alone = Timing(1, p50, p90, p99, p50, 1.0, 1.0, 1.0, runs=len(probed.result["times_s"]))
    script = isolation.keep_script(f"{REFERENCE} of {version.name} {version.version}")
    return Variant(
        id=REFERENCE,
        name=version.name,
        version=version.version,
        recipe=REFERENCE,
        target=walk.REFERENCE_TARGET,
        techniques=(),
        parameters=version.parameters,
        size_bytes=version.size_bytes,
        verdict=Verdict.SERVING,
        reason="the uploaded model itself",
        artifact=Artifact(
            {"model.onnx": version.model, "reproduce.sh": script}, walk.REFERENCE_OPTIONS, version.size_bytes
        ),
        evidence=Evidence(
            agreement=None,
            timings=(alone,),
            hardware=hardware.fingerprint(),
            versions=tool_versions(),
            peak_memory_bytes=probed.peak_memory_bytes,
            noise_sqnr_db=probed.result["noise_sqnr_db"],
        ),
        plan=Plan(threads=hardware.usable_cores(), max_rows=probed.result["max_rows"]),
        created_at=time.time(),
    )


def subject_of(version: ModelVersion, policy: Policy, target: str, isolation: Isolation) -> Subject:
    """Look at the reference on this machine first (an earlier look counts). Raises StepFailed."""
    probed = isolation.run(walk.probe(version), REFERENCE)
    subject = Subject(
        version=version,
        policy=policy,
        target=target,
        max_rows=probed.result["max_rows"],
        guess=probed.result["guess"],
        threads=hardware.usable_cores(),
        sizes=probed.result["shapes"],
        samples=probed.result["samples"],
    )
    return planning.with_reference_plan(subject, isolation)


def compile_variant(subject: Subject, recipe: Recipe, isolation: Isolation) -> Variant | Rejected:
    """Transform, build, compare with the reference, measure against it, and say what came of it."""
    isolation.begin()
    version, name = subject.version, subject.variant_id(recipe)
    if recipe.calibrated and version.samples is None:
        return Rejected(Verdict.INCONCLUSIVE, words.NO_SAMPLES_TO_CALIBRATE)

    artifact, agreement, parameters = None, None, version.parameters
    facts: dict[str, Any] = {"calibration": proof.calibration(subject, recipe), "recipe": proof.made_by(recipe)}
    try:
        transformed = transform(subject, recipe, isolation)
        parameters = transformed.result["parameters"]

        built = isolation.run(walk.build(subject, recipe, transformed.files["model.onnx"]), name)
        artifact = keep(artifact_of(isolation, built), recipe, isolation.store.blobs)
        facts |= proof.arithmetic(transformed.result, artifact.options)

        expected = isolation.run(walk.reference_outputs(subject), REFERENCE)
        bounds = gate.bounds_for(recipe.precision, subject.policy.gate, lossless=recipe.lossless)
        agreed = isolation.run(walk.agree(subject, artifact, expected.files["outputs.npz"], bounds), name)
        agreement = msgspec.convert(agreed.result["agreement"], Agreement)
        judgement = _judge(subject, recipe, agreement, bounds)
        facts["gate"] = proof.asked(bounds, agreement) if _proves(subject, recipe) else {}
        if judgement.finding is Finding.FAILED:
            raise StepFailed(judgement.reason)

        measured = isolation.run(walk.measure(subject, artifact), name)
        timings = msgspec.convert(measured.result["timings"], tuple[Timing, ...])
    except StepFailed as exc:
        script = _with_script(isolation, name, artifact)
        return Rejected(Verdict.REJECTED, str(exc), script, agreement, parameters, facts)

    verdict = _verdict(judgement.finding, timings)
    return _variant(
        subject,
        recipe,
        verdict=verdict,
        reason=words.reason(
            verdict, judgement.reason, timings, transformed.result["quantized"], measured.result["skipped"]
        ),
        artifact=_with_script(isolation, name, artifact),
        evidence=Evidence(
            agreement=agreement if _proves(subject, recipe) else None,
            timings=timings,
            hardware=hardware.fingerprint(),
            versions=tool_versions(),
            peak_memory_bytes=measured.result["variant_memory_bytes"],
            **facts,
        ),
        parameters=parameters,
    )


def rejected_variant(subject: Subject, recipe: Recipe, rejected: Rejected) -> Variant:
    """The same as a row of the catalog: what was tried stays visible, with its reason."""
    measured = Evidence(rejected.agreement, (), hardware.fingerprint(), tool_versions())
    evidence = replace(measured, **rejected.facts) if rejected.artifact else None
    return _variant(
        subject,
        recipe,
        verdict=rejected.verdict,
        reason=rejected.reason,
        artifact=rejected.artifact,
        evidence=evidence,
        parameters=rejected.parameters or subject.version.parameters,
    )


def artifact_of(isolation: Isolation, built: Done) -> Artifact:
    size = sum(isolation.store.blobs.size(digest) for digest in built.files.values())
    return Artifact(files=dict(built.files), options=built.result["options"], size_bytes=size)


def _with_script(isolation: Isolation, name: str, artifact: Artifact | None) -> Artifact | None:
    """The artifact with the script that repeats what was done; where nothing was built, the job's log names it."""
    version = f"{isolation.job.name} {isolation.job.version}"
    script = isolation.keep_script(f"{name} of {version}")
    return artifact and replace(artifact, files={**artifact.files, "reproduce.sh": script})


def _proves(subject: Subject, recipe: Recipe) -> bool:
    """On made-up inputs only equality means something."""
    return recipe.lossless or subject.version.samples is not None


def _judge(subject: Subject, recipe: Recipe, agreement: Agreement, bounds: gate.Bounds) -> gate.Judgement:
    if not _proves(subject, recipe):
        return gate.Judgement(Finding.INCONCLUSIVE, words.NO_SAMPLES)
    judgement = gate.judge(agreement, bounds)
    if subject.version.samples is None:
        return gate.Judgement(judgement.finding, judgement.reason.replace(" samples", " synthetic inputs"))
    return judgement


def _verdict(finding: Finding, timings: tuple[Timing, ...]) -> Verdict:
    if finding is Finding.INCONCLUSIVE:
        return Verdict.INCONCLUSIVE
    return Verdict.SERVING if wins(timings) else Verdict.ELIGIBLE


def _variant(
    subject: Subject,
    recipe: Recipe,
    *,
    verdict: Verdict,
    reason: str,
    artifact: Artifact | None,
    evidence: Evidence | None,
    parameters: int,
) -> Variant:
    return Variant(
        id=subject.variant_id(recipe),
        name=subject.version.name,
        version=subject.version.version,
        recipe=recipe.name,
        target=subject.target,
        techniques=recipe.techniques,
        parameters=parameters,
        size_bytes=(artifact.stored_bytes or artifact.size_bytes) if artifact else 0,
        verdict=verdict,
        reason=reason,
        artifact=artifact,
        evidence=evidence,
        plan=Plan(subject.setting.threads, subject.max_rows, subject.setting.instances) if artifact else None,
        created_at=time.time(),
    )

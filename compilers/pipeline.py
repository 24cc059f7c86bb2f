"""The compile walk: a version becomes variants, each with a verdict and its reason in words.

Reads top to bottom as it happens; everything dangerous happens in the children of `isolate`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from compilers import gate, hardware, words
from compilers.gate import Finding
from compilers.isolate import Done, Isolation, Step, StepFailed, reproduce_script, tool_versions
from compilers.measure import wins
from compilers.recipe import Recipe
from model_store.entities import (
    REFERENCE,
    Agreement,
    Artifact,
    Digest,
    Evidence,
    ModelVersion,
    Plan,
    Timing,
    Variant,
    Verdict,
)
from model_store.policy import Policy

REFERENCE_TARGET = "ort-cpu"
REFERENCE_OPTIONS = {"precision": "f32", "reference": True}

COMPARED_ROWS_MOST = 64
OUTPUTS_MOST_BYTES = 1 << 30
OUTPUTS_SHARE = 1 / 6
"""Of the budget, for running the reference over the samples: every variant takes about as long again."""
TIMED_SECONDS, TIMED_MOST_SECONDS = 5.0, 30.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is being compiled, and how the reference behaves on this machine."""

    version: ModelVersion
    policy: Policy
    target: str
    max_rows: int
    guess: int
    threads: int

    def variant_id(self, recipe: Recipe) -> str:
        return f"{self.target}.{recipe.name}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A variant that will not be: why, and what was learnt of it on the way."""

    verdict: Verdict
    reason: str
    artifact: Artifact | None = None
    agreement: Agreement | None = None
    parameters: int = 0


def publish_reference(version: ModelVersion, isolation: Isolation) -> Variant:
    """The uploaded model itself as a variant. Raises StepFailed when it does not run here."""
    probed = probe(version, isolation)
    p50, p90, p99 = (float(value) for value in np.percentile(probed.result["times_s"], (50, 90, 99)))
    alone = Timing(1, p50, p90, p99, p50, 1.0, 1.0, 1.0, runs=len(probed.result["times_s"]))
    script = isolation.store.blobs.put_bytes(reproduce_script(f"{version.name} {version.version}", isolation.trail))
    return Variant(
        id=REFERENCE,
        name=version.name,
        version=version.version,
        recipe=REFERENCE,
        target=REFERENCE_TARGET,
        techniques=(),
        parameters=version.parameters,
        size_bytes=version.size_bytes,
        verdict=Verdict.SERVING,
        reason="the uploaded model itself",
        artifact=Artifact({"model.onnx": version.model, "reproduce.sh": script}, REFERENCE_OPTIONS, version.size_bytes),
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
    probed = probe(version, isolation)
    return Subject(
        version=version,
        policy=policy,
        target=target,
        max_rows=probed.result["max_rows"],
        guess=probed.result["guess"],
        threads=hardware.usable_cores(),
    )


def compile_variant(subject: Subject, recipe: Recipe, isolation: Isolation) -> Variant | Rejected:
    """Transform, build, compare with the reference, measure against it, and say what came of it."""
    isolation.begin()
    version, name = subject.version, subject.variant_id(recipe)
    if recipe.calibrated and version.samples is None:
        return Rejected(Verdict.INCONCLUSIVE, words.NO_SAMPLES_TO_CALIBRATE)

    artifact, agreement, parameters = None, None, version.parameters
    try:
        transformed = isolation.run(_transform(subject, recipe), name)
        parameters = transformed.result["parameters"]

        built = isolation.run(_build(subject, recipe, transformed.files["model.onnx"]), name)
        artifact = _artifact(isolation, built)

        expected = isolation.run(_reference_outputs(subject), REFERENCE)
        agreed = isolation.run(_agree(subject, artifact, expected.files["outputs.npz"]), name)
        agreement = msgspec.convert(agreed.result["agreement"], Agreement)
        judgement = _judge(subject, recipe, agreement)
        if judgement.finding is Finding.FAILED:
            raise StepFailed(judgement.reason)

        measured = isolation.run(_measure(subject, artifact), name)
        timings = msgspec.convert(measured.result["timings"], tuple[Timing, ...])
    except StepFailed as exc:
        return Rejected(Verdict.REJECTED, str(exc), _with_script(isolation, name, artifact), agreement, parameters)

    verdict = _verdict(judgement.finding, timings)
    return _variant(
        subject,
        recipe,
        verdict=verdict,
        reason=words.reason(verdict, judgement.reason, timings, transformed.result["quantized"]),
        artifact=_with_script(isolation, name, artifact),
        evidence=Evidence(
            agreement=agreement if _proves(subject, recipe) else None,
            timings=timings,
            hardware=hardware.fingerprint(),
            versions=tool_versions(),
            peak_memory_bytes=measured.result["variant_memory_bytes"],
        ),
        parameters=parameters,
    )


def rejected_variant(subject: Subject, recipe: Recipe, rejected: Rejected) -> Variant:
    """The same as a row of the catalog: what was tried stays visible, with its reason."""
    evidence = Evidence(rejected.agreement, (), hardware.fingerprint(), tool_versions()) if rejected.artifact else None
    return _variant(
        subject,
        recipe,
        verdict=rejected.verdict,
        reason=rejected.reason,
        artifact=rejected.artifact,
        evidence=evidence,
        parameters=rejected.parameters or subject.version.parameters,
    )


def probe(version: ModelVersion, isolation: Isolation) -> Done:
    params = _opened(version.model, REFERENCE_TARGET, REFERENCE_OPTIONS)[0] | {"signature": _plain(version.signature)}
    inputs = {"artifact/model.onnx": version.model} | _samples(version)
    return isolation.run(Step("probe", params, inputs), REFERENCE)


def _transform(subject: Subject, recipe: Recipe) -> Step:
    params = {
        "recipe": recipe.digest(),
        "passes": [{"name": spec.name, "params": dict(spec.params)} for spec in recipe.passes],
        "calibrated": recipe.calibrated,
        "signature": _plain(subject.version.signature),
    }
    samples = _samples(subject.version) if recipe.calibrated else {}
    return Step("transform", params, {"model": subject.version.model} | samples)


def _build(subject: Subject, recipe: Recipe, model: Digest) -> Step:
    return Step("build", {"target": subject.target, "options": dict(recipe.options)}, {"model": model})


def _reference_outputs(subject: Subject) -> Step:
    params, inputs = _opened(subject.version.model, REFERENCE_TARGET, REFERENCE_OPTIONS)
    params |= _fed(subject) | {
        "most_bytes": OUTPUTS_MOST_BYTES,
        "seconds": round(subject.policy.budget_seconds * OUTPUTS_SHARE, 1),
    }
    return Step("outputs", params, inputs | _samples(subject.version))


def _agree(subject: Subject, artifact: Artifact, outputs: Digest) -> Step:
    params = {"target": subject.target, "options": dict(artifact.options), "threads": subject.threads} | _fed(subject)
    inputs = {f"artifact/{name}": digest for name, digest in artifact.files.items()} | {"outputs": outputs}
    return Step("agree", params, inputs | _samples(subject.version))


def _measure(subject: Subject, artifact: Artifact) -> Step:
    params = {
        "reference": {"target": REFERENCE_TARGET, "options": REFERENCE_OPTIONS},
        "variant": {"target": subject.target, "options": dict(artifact.options)},
        "threads": subject.threads,
        "seconds": TIMED_SECONDS,
        "most_seconds": TIMED_MOST_SECONDS,
        **_fed(subject),
        "rows": sorted(set(subject.policy.rows)),
    }
    inputs = {"reference/model.onnx": subject.version.model}
    inputs |= {f"variant/{name}": digest for name, digest in artifact.files.items()}
    return Step("measure", params, inputs | _samples(subject.version))


def _opened(model: Digest, target: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Digest]]:
    params = {"target": target, "options": dict(options), "threads": hardware.usable_cores()}
    return params, {"artifact/model.onnx": model}


def _fed(subject: Subject) -> dict[str, Any]:
    """What decides which inputs a step runs on: batch sizes a request may meet, in turns."""
    return {
        "signature": _plain(subject.version.signature),
        "guess": subject.guess,
        "rowwise": subject.max_rows > 1,
        "rows": sorted({min(rows, COMPARED_ROWS_MOST) for rows in subject.policy.rows}),
    }


def _samples(version: ModelVersion) -> dict[str, Digest]:
    return {} if version.samples is None else {"samples": version.samples}


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


def _artifact(isolation: Isolation, built: Done) -> Artifact:
    size = sum(isolation.store.blobs.size(digest) for digest in built.files.values())
    return Artifact(files=dict(built.files), options=built.result["options"], size_bytes=size)


def _with_script(isolation: Isolation, name: str, artifact: Artifact | None) -> Artifact:
    """The artifact with the script that repeats everything done for it; for a crash, the script is all there is."""
    version = f"{isolation.job.name} {isolation.job.version}"
    script = isolation.store.blobs.put_bytes(reproduce_script(f"{name} of {version}", isolation.trail))
    made = artifact or Artifact({}, {}, 0)
    return Artifact({**made.files, "reproduce.sh": script}, made.options, made.size_bytes)


def _proves(subject: Subject, recipe: Recipe) -> bool:
    """On made-up inputs only equality means something."""
    return recipe.lossless or subject.version.samples is not None


def _judge(subject: Subject, recipe: Recipe, agreement: Agreement) -> gate.Judgement:
    if not _proves(subject, recipe):
        return gate.Judgement(Finding.INCONCLUSIVE, words.NO_SAMPLES)
    bounds = gate.bounds_for(recipe.precision, subject.policy.gate, lossless=recipe.lossless)
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
    runs = artifact is not None and evidence is not None and bool(artifact.options)
    return Variant(
        id=subject.variant_id(recipe),
        name=subject.version.name,
        version=subject.version.version,
        recipe=recipe.name,
        target=subject.target,
        techniques=recipe.techniques,
        parameters=parameters,
        size_bytes=artifact.size_bytes if artifact else 0,
        verdict=verdict,
        reason=reason,
        artifact=artifact,
        evidence=evidence,
        plan=Plan(subject.threads, subject.max_rows) if runs else None,
        created_at=time.time(),
    )

"""Small real rows for catalogs: what a registration and a compilation leave, without a model or a runtime."""

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import update

from model_store.catalog import Catalog
from model_store.entities import (
    REFERENCE,
    Agreement,
    Artifact,
    Evidence,
    Job,
    JobKind,
    JobState,
    ModelVersion,
    OutputAgreement,
    Plan,
    Signature,
    TensorSpec,
    Timing,
    Variant,
    Verdict,
)
from model_store.tables import jobs

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))
EVERY_KIND = (JobKind.REFERENCE, JobKind.COMPILE)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def register(
    catalog: Catalog,
    name: str = "digits",
    targets: Sequence[str] = ("ort-cpu", "openvino-cpu"),
    model: str = "model",
    **policy: Any,
) -> tuple[ModelVersion, tuple[Job, ...]]:
    return catalog.register(
        name,
        model=digest(model),
        size_bytes=1234,
        signature=SIGNATURE,
        samples=digest("samples"),
        policy={"objective": "latency"} | policy,
        targets=targets,
        parameters=99,
        operators={"Gemm": 2, "Relu": 1},
    )


def variant(
    version: ModelVersion, name: str = REFERENCE, verdict: Verdict = Verdict.SERVING, at: float = 1.0
) -> Variant:
    target, _, recipe = name.rpartition(".")
    return Variant(
        id=name,
        name=version.name,
        version=version.version,
        recipe=recipe,
        target=target or "ort-cpu",
        techniques=("int8",) if name != REFERENCE else (),
        parameters=99,
        size_bytes=77,
        verdict=verdict,
        reason="because",
        artifact=Artifact({"model.onnx": digest(name)}, {"precision": "f32"}, 77)
        if verdict != Verdict.REJECTED
        else None,
        evidence=EVIDENCE,
        plan=Plan(threads=2, max_rows=64),
        created_at=at,
    )


def claim(catalog: Catalog, worker: str = "w") -> Job:
    """The next job of any kind, held for a minute."""
    job = catalog.claim(worker, EVERY_KIND, 60.0)
    assert job is not None
    return job


def publish_reference(catalog: Catalog, worker: str = "w") -> Job:
    """Claim the next reference job, publish its variant, finish it."""
    job = catalog.claim(worker, (JobKind.REFERENCE,), 60.0)
    assert job is not None
    catalog.publish(job, variant(catalog.version(job.name, job.version)))
    catalog.finish(job, JobState.SUCCEEDED)
    return job


def expire(catalog: Catalog, job: Job) -> None:
    """Let the lease of a job end, as time would."""
    with catalog._database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(lease_until=1.0))


EVIDENCE = Evidence(
    agreement=Agreement(
        samples=200,
        sqnr_db=31.5,
        sqnr_p5_db=28.0,
        cosine=0.9997,
        cosine_p1=0.999,
        worst_sample=17,
        outputs={"y": OutputAgreement(31.5, 28.0, 0.9997, 0.999, 0.01)},
        top1=0.995,
        top1_lower=0.98,
    ),
    timings=(Timing(1, 0.001, 0.0012, 0.002, 0.002, 2.0, 1.9, 2.1, 300),),
    hardware={"cpu": "test"},
    versions={"onnxruntime": "1.31"},
    peak_memory_bytes=1 << 20,
    noise_sqnr_db=200.0,
)

"""A real serving engine for tests, put together by hand: real runner processes, models of the zoo, no store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gateway.codec.values import join_texts, split_texts
from gateway.routing.health import Subject
from gateway.routing.ranking import VersionRoute, rank
from gateway.routing.router import ModelRoutes, RouteTable
from gateway.serve import Call, Result, Serving, infer
from gateway.settings import Settings
from gateway.tensors import Tensor
from model_store.datatypes import ONNX, numpy_dtype, v2_name
from model_store.entities import (
    REFERENCE,
    Agreement,
    Artifact,
    Evidence,
    Plan,
    Signature,
    TensorSpec,
    Timing,
    Variant,
    Verdict,
)

MIB = 1 << 20


def settings(**changes: Any) -> Settings:
    return Settings(**{"slot_bytes": 16 * MIB, **changes})


def signature_of(model: onnx.ModelProto) -> Signature:
    def specs(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                value.name,
                ONNX[value.type.tensor_type.elem_type],
                tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim),
            )
            for value in values
        )

    return Signature(specs(model.graph.input), specs(model.graph.output))


def variant(
    model: str,
    variant_id: str = REFERENCE,
    speedups: Mapping[int, float] | None = None,
    verdict: Verdict = Verdict.SERVING,
    max_rows: int = 64,
    target: str = "ort-cpu",
    digest: str = "0" * 64,
) -> Variant:
    timings = tuple(
        Timing(rows, 0.001 / speed, 0.0012, 0.002, 0.001, speed, speed * 0.95, speed * 1.05, 100)
        for rows, speed in (speedups or {}).items()
    )
    evidence = Evidence(Agreement(100, 40.0, 38.0, 0.9999, 0.999, 3, {}), timings, {"cpu": "test"})
    artifact = Artifact({"model.onnx": digest}, {"precision": "f32"}, 1)
    return Variant(
        id=variant_id, name=model, version="1", recipe=variant_id, target=target, techniques=(), parameters=1,
        size_bytes=1, verdict=verdict, reason="as the test wants it", artifact=artifact, evidence=evidence,
        plan=Plan(1, max_rows), created_at=0.0,
    )  # fmt: skip


async def deploy(
    serving: Serving,
    name: str,
    model: onnx.ModelProto,
    folder: Path,
    variants: Mapping[str, Mapping[int, float]] | None = None,
    max_rows: int = 64,
    files: Mapping[str, onnx.ModelProto] | None = None,
    instances: int = 1,
) -> VersionRoute:
    """Open `model` as version 1 of `name`, with the reference and the variants given by their speed-ups.

    Everything runs with one thread, `instances` batches at a time.
    """
    signature = signature_of(model)
    all_variants, sessions = {}, {}
    for one, speedups in {REFERENCE: {}, **(variants or {})}.items():
        path = folder / f"{name}.{one}.onnx"
        onnx.save((files or {}).get(one, model), path)
        all_variants[one] = variant(name, one, speedups, max_rows=max_rows)
        sessions[one] = serving.runners.load(
            "ort-cpu", Subject(name, "1", one), {"model.onnx": path}, {"precision": "f32"}, signature, 1,
            instances=instances,
        )  # fmt: skip
    await asyncio.gather(*(session.opened for session in sessions.values()))
    buckets, ranked = rank(all_variants.values(), False)
    route = VersionRoute(name, "1", signature, all_variants, buckets, ranked).opened(sessions)
    models = {**serving.table.models, name: ModelRoutes({"1": route}, {}, "1")}
    serving.swap(
        RouteTable(models, 1, serving.health), {**serving.batchers, (name, "1"): serving.runners.batcher(route)}
    )
    serving.starting = False
    return route


@contextlib.asynccontextmanager
async def engine(**changes: Any) -> AsyncIterator[Serving]:
    serving = Serving(settings(**changes))
    async with serving:
        yield serving


def tensor(array: np.ndarray) -> Tensor:
    name = v2_name(array.dtype)
    if name == "BYTES":
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        return Tensor(name, array.shape, join_texts(flat))
    return Tensor(name, array.shape, np.ascontiguousarray(array).tobytes())


def array(tensor: Tensor) -> np.ndarray:
    if tensor.datatype == "BYTES":
        flat = np.empty(len(texts := split_texts(tensor)), dtype=object)
        flat[:] = texts
        return flat.reshape(tensor.shape)
    return np.frombuffer(tensor.data, numpy_dtype(tensor.datatype)).reshape(tensor.shape)


async def ask(
    serving: Serving, name: str, inputs: Mapping[str, np.ndarray], timeout_s: float = 20.0, pin: str | None = None
) -> Result:
    route = serving.table.resolve(name)
    now = time.monotonic_ns()
    return await infer(serving, Call(route, [(n, tensor(a)) for n, a in inputs.items()], "", timeout_s, pin, now, now))


def outputs_of(result: Result) -> dict[str, np.ndarray]:
    specs = result.route.signature.outputs
    return {spec.name: array(t) for spec, t in zip(specs, result.answer.outputs, strict=True)}


async def until(condition: Any, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.005)

"""Is any serving variant slower than the reference in a bucket where it answers? `python -m benchmarks.never_slower`

Over more than twenty models of different kinds, among them the official ONNX ones that are whole models (their weights
are constants, so only their speed means anything), each is compiled as it would be through the API. Then every pair of
serving variant and bucket that routing may use is timed *again*, in turns with the reference, in fresh processes and on
other rounds than its evidence. A pair fails when the fresh interval lies below one; where only its middle does, that
is told.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx.backend.test import data as onnx_data

from benchmarks.networks import mobilenet_v2, smooth_images
from compilers import hardware, steps, walk
from compilers.timing.plan import Setting
from compilers.worker import run_worker
from model_store.entities import REFERENCE, Job, Timing, Variant, Verdict
from model_store.policy import Policy
from model_store.store import ModelStore
from tests import zoo

OFFICIAL = Path(next(iter(onnx_data.__path__)))
BUDGET_SECONDS, SECONDS = 240.0, 3.0
SAMPLES = 120


@dataclass(frozen=True)
class Pair:
    """A serving variant in a bucket, as its evidence has it and as it was measured again."""

    model: str
    variant: str
    rows: int
    evidence: Timing
    again: Timing

    @property
    def slower(self) -> bool:
        return self.again.speedup_upper < 1.0


def _zoo() -> Iterator[tuple[str, Callable[[], onnx.ModelProto]]]:
    yield "mlp", zoo.mlp
    yield "mlp-wide", lambda: zoo.mlp(hidden=1024, inputs=512)
    yield "gemms-16mb", lambda: zoo.big(16)
    yield "transformer", zoo.transformer
    yield "transformer-wide", lambda: zoo.transformer(layers=2, width=256)
    yield "outliers", lambda: zoo.outliers(layers=2, width=256)
    yield "residual-cnn", zoo.residual_cnn
    yield "residual-cnn-wide", lambda: zoo.residual_cnn(channels=64, blocks=4, size=32)
    yield "multi-io", zoo.multi_io
    yield "simple", zoo.simple
    yield "strings", zoo.strings
    yield "scalar-output", zoo.scalar_output
    yield "fixed-batch", zoo.fixed_batch
    yield "batch-mixing", zoo.batch_mixing


def _official() -> Iterator[tuple[str, Callable[[], onnx.ModelProto]]]:
    for name in ("squeezenet", "shufflenet", "inception_v1", "inception_v2", "densenet121", "resnet50", "zfnet512"):
        yield f"onnx-{name}", lambda name=name: onnx.load(OFFICIAL / "light" / f"light_{name}.onnx")
    for folder, name in (("simple", "single_relu_model"), ("simple", "sign_model"), ("pytorch-converted", "Conv2d"),
                         ("pytorch-converted", "Linear"), ("pytorch-converted", "PReLU_2d")):  # fmt: skip
        yield f"onnx-{name}", lambda at=OFFICIAL / folder / f"test_{name}" / "model.onnx": onnx.load(at)


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    **dict(_zoo()),
    "mobilenet-v2": lambda: mobilenet_v2(seed=0),
    **dict(_official()),
}


def samples_of(name: str, model: onnx.ModelProto) -> Mapping[str, np.ndarray]:
    if name == "mobilenet-v2":
        return {"image": smooth_images(SAMPLES, seed=1)}
    if name == "strings":
        words = zoo.random_inputs(model, SAMPLES, seed=1)["text"]
        return {"text": np.array([word.decode() for word in words])}
    given = zoo.random_inputs(model, SAMPLES, seed=1)
    fixed = {key: array for key, array in given.items() if len(array) != SAMPLES}
    return given | {key: np.stack([zoo.random_inputs(model, 1, seed=at)[key] for at in range(24)]) for key in fixed}


def compiled(store: ModelStore, name: str, budget_seconds: float) -> list[Variant]:
    """Register and compile a model as the API would; its variants. Raises RuntimeError where the reference failed."""
    model = MODELS[name]()
    with tempfile.TemporaryDirectory() as folder:
        upload, packed = Path(folder, "model.onnx"), Path(folder, "samples.npz")
        onnx.save(model, upload)
        zoo.npz(packed, **samples_of(name, model))
        policy = {"budget_seconds": budget_seconds}
        targets = ("ort-cpu", "openvino-cpu")
        _, jobs = store.register(name, upload, samples=packed, policy=policy, targets=targets)
    stop = threading.Event()
    worker = threading.Thread(target=run_worker, args=(store, stop), kwargs={"nice": 0})
    worker.start()
    try:
        while not all(_ended(store, job) for job in jobs):
            stop.wait(0.2)
    finally:
        stop.set()
        worker.join()
    return list(store.catalog.variants(name, "1"))


def _ended(store: ModelStore, job: Job) -> bool:
    found = store.catalog.job(job.id)
    if found.error:
        raise RuntimeError(f"job {found.id} for {found.target}: {found.error}")
    return found.state.ended


def measured_again(store: ModelStore, name: str, variants: list[Variant], seconds: float) -> Iterator[Pair]:
    """Every serving variant in every bucket where it is proven, timed once more."""
    version = store.catalog.version(name, "1")
    reference = next(variant for variant in variants if variant.id == REFERENCE)
    probed = store.catalog.step_result(walk.probe(version).key())
    assert probed is not None and reference.plan is not None
    for variant in variants:
        if variant.verdict is not Verdict.SERVING or variant.id == REFERENCE or variant.evidence is None:
            continue
        proven = {timing.rows: timing for timing in variant.evidence.timings if timing.speedup_lower > 1.0}
        subject = walk.Subject(
            version=version,
            policy=Policy.model_validate(version.policy),
            target=variant.target,
            max_rows=reference.plan.max_rows,
            guess=probed["result"]["guess"],
            threads=hardware.usable_cores(),
            plan=reference.plan,
        )
        assert variant.artifact is not None and variant.plan is not None
        setting = Setting(variant.plan.threads, variant.plan.instances)
        step = walk.measure(subject, variant.artifact, rows=sorted(proven), seconds=seconds, setting=setting)
        paths = {key: store.blobs.path(digest) for key, digest in step.inputs.items()}
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            request = msgspec.json.decode(msgspec.json.encode(step.params))
            answer = msgspec.json.decode(msgspec.json.encode(steps.measure(request, paths).result))
        for timing in msgspec.convert(answer["timings"], tuple[Timing, ...]):
            yield Pair(name, variant.id, timing.rows, proven[timing.rows], timing)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.never_slower", description=__doc__)
    parser.add_argument("--models", help="names, with commas; all by default", default=",".join(MODELS))
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="seconds a target may compile")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing again, for each variant")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    options = parser.parse_args()
    pairs: list[Pair] = []
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore.open(Path(folder, "data"))
        try:
            for name in options.models.split(","):
                variants = compiled(store, name, options.budget)
                found = list(measured_again(store, name, variants, options.seconds))
                pairs += found
                told += [msgspec.to_builtins(pair) for pair in found]
                serving = ", ".join(sorted({pair.variant for pair in found})) or "the reference alone"
                print(f"{name:20} {serving}", flush=True)
                for pair in found:
                    mark = "  SLOWER" if pair.slower else "  (near one)" if pair.again.speedup < 1 else ""
                    print(
                        f"    {pair.variant} at {pair.rows}: evidence {pair.evidence.speedup:.2f}x, again "
                        f"{pair.again.speedup:.2f}x ({pair.again.speedup_lower:.2f} to {pair.again.speedup_upper:.2f})"
                        f"{mark}",
                        flush=True,
                    )
        finally:
            store.close()
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(told)))
    slower = [pair for pair in pairs if pair.slower]
    models = len(options.models.split(","))
    print(
        f"\n{models} models, {len(pairs)} pairs of variant and bucket on {os.cpu_count()} cores: {len(slower)} slower"
    )
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()

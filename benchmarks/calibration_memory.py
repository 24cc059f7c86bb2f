"""Peak memory of calibrating: `python -m benchmarks.calibration_memory [--subjects gemms resnet50] [--by grams nncf]`.

A model of 100 MB is calibrated on 1,000 samples in a child that does nothing else; its peak is what the
kernel says of it (VmHWM). The mark is three times the model and 500 MB. Samples lie in a file, as in the product.

By `ranges`: what static int8 asks for; `grams`: Gram matrices, too; `nncf`: NNCF's whole quantization of the model,
which takes the first 300 samples, as it does in the product.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks import networks
from compilers.calibration.calibrate import calibrate
from compilers.calibration.spool import SpooledRows
from compilers.passes import run_passes
from compilers.passes.int8_static import usual_tensors
from compilers.passes.shapes import with_shapes
from compilers.recipe import PassSpec
from compilers.steps import peak_memory_bytes
from tests import zoo

MB = 1_000_000
BY = ("ranges", "grams", "nncf")


def gemms() -> tuple[onnx.ModelProto, str, tuple[int, ...]]:
    """25 Gemms of 1024 x 1024: weights are everything."""
    return zoo.big(100), "x", (1024,)


def resnet50() -> tuple[onnx.ModelProto, str, tuple[int, ...]]:
    """ResNet-50 on images of 224 x 224: 1,000 of them are six times the model, its activations as much a run."""
    return networks.resnet50(seed=0), "image", (3, 224, 224)


SUBJECTS: dict[str, Callable[[], tuple[onnx.ModelProto, str, tuple[int, ...]]]] = {"gemms": gemms, "resnet50": resnet50}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration_memory", description=__doc__)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--by", nargs="+", choices=BY, default=["ranges"])
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "INPUT", "BY"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _calibrate(Path(asked.child[0]), *asked.child[1:])
        return
    print("| model | MB | samples | MB | by | peak MB | at most | CPU s |\n|---|---:|---:|---:|---|---:|---:|---:|")
    for name, by in itertools.product(asked.subjects, asked.by):
        print(_measure(name, asked.samples, by), flush=True)


def _measure(name: str, samples: int, by: str) -> str:
    """One row of the table. Raises CalledProcessError when the child fails."""
    with tempfile.TemporaryDirectory() as folder:
        model, tensor, shape = SUBJECTS[name]()
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        random, stored = np.random.default_rng(0), 0
        with Path(folder, "samples").open("wb") as file:
            for _ in range(samples):
                stored += file.write(random.standard_normal(shape, dtype=np.float32).tobytes())
        Path(folder, "samples.json").write_text(json.dumps([samples, *shape]))
        command = [sys.executable, "-m", "benchmarks.calibration_memory", "--child", folder, tensor, by]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        told = json.loads(answer.stdout)
        size = path.stat().st_size
        bound = 3 * size + 500 * MB
    return (
        f"| {name} | {size / MB:.0f} | {samples} | {stored / MB:.0f} | {by} "
        f"| {told['peak'] / MB:.0f} | {bound / MB:.0f} | {told['cpu_s']:.0f} |"
    )


def _calibrate(folder: Path, tensor: str, by: str) -> None:
    shape = tuple(json.loads((folder / "samples.json").read_text()))
    rows = SpooledRows(folder / "samples", shape, np.dtype(np.float32))
    if by == "nncf":
        specs = [PassSpec("fold-batch-norm"), PassSpec("int8-nncf")]
        onnx.save(run_passes(onnx.load(folder / "model.onnx"), specs, {tensor: rows}), folder / "quantized.onnx")
    else:
        model = ir.from_proto(with_shapes(onnx.load(folder / "model.onnx")))
        calibrate(model, {tensor: rows}, folder / "statistics.npz", tensors=usual_tensors(model), grams=by == "grams")
    print(json.dumps({"peak": peak_memory_bytes(), "cpu_s": time.process_time()}))


if __name__ == "__main__":
    main()

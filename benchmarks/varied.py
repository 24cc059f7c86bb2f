"""Twenty-seven models of different kinds, with samples: built in code, or official ONNX ones that are whole models.

The official ones (of the `onnx` package's own backend tests) have constants for weights, so only their speed means
anything; rejecting what quantizes them badly is right, and what serves them must still never be slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
from onnx.backend.test import data as onnx_data

from benchmarks.networks import mobilenet_v2, smooth_images
from tests import zoo

OFFICIAL = Path(next(iter(onnx_data.__path__)))
LIGHT = ("squeezenet", "shufflenet", "inception_v1", "inception_v2", "densenet121", "resnet50", "zfnet512")
TESTS = (
    "simple/test_single_relu_model", "simple/test_sign_model", "pytorch-converted/test_Conv2d",
    "pytorch-converted/test_Linear", "pytorch-converted/test_PReLU_2d",
)  # fmt: skip
OLDEST_OPSET, LIFTED_OPSET = 7, 13
SAMPLES = 120


def _test(name: str) -> onnx.ModelProto:
    """Of an opset that intake refuses: converted, as its message advises."""
    model = onnx.load(OFFICIAL / name / "model.onnx")
    if max(each.version for each in model.opset_import) >= OLDEST_OPSET:
        return model
    return onnx.version_converter.convert_version(model, LIFTED_OPSET)


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": zoo.mlp,
    "mlp-wide": partial(zoo.mlp, hidden=1024, inputs=512),
    "gemms-16mb": partial(zoo.big, 16),
    "transformer": zoo.transformer,
    "transformer-wide": partial(zoo.transformer, layers=2, width=256),
    "outliers": partial(zoo.outliers, layers=2, width=256),
    "residual-cnn": zoo.residual_cnn,
    "residual-cnn-wide": partial(zoo.residual_cnn, channels=64, blocks=4, size=32),
    "multi-io": zoo.multi_io,
    "simple": zoo.simple,
    "strings": zoo.strings,
    "scalar-output": zoo.scalar_output,
    "fixed-batch": zoo.fixed_batch,
    "batch-mixing": zoo.batch_mixing,
    "mobilenet-v2": partial(mobilenet_v2, seed=0),
    **{f"onnx-{name}": partial(onnx.load, OFFICIAL / "light" / f"light_{name}.onnx") for name in LIGHT},
    **{f"onnx-{name.partition('test_')[2]}": partial(_test, name) for name in TESTS},
}


def samples_of(name: str, model: onnx.ModelProto) -> Mapping[str, np.ndarray]:
    """`SAMPLES` rows for every input; of a model with a fixed batch 24 batches."""
    if name == "mobilenet-v2":
        return {"image": smooth_images(SAMPLES, seed=1)}
    if name == "strings":
        words = zoo.random_inputs(model, SAMPLES, seed=1)["text"]
        return {"text": np.array([word.decode() for word in words])}
    given = zoo.random_inputs(model, SAMPLES, seed=1)
    fixed = {key: array for key, array in given.items() if len(array) != SAMPLES}
    return given | {key: np.stack([zoo.random_inputs(model, 1, seed=at)[key] for at in range(24)]) for key in fixed}

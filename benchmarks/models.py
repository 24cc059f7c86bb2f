"""The models that are measured: two small, two of the size people serve; built in code or committed, none fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from gateway.demo import digits
from tests import zoo

SEQUENCE, VOCABULARY = 128, 8000


@dataclass(frozen=True)
class Subject:
    """`samples`: what it is registered with. `row`: the inputs of a one-row request. `note`: what to know of it."""

    name: str
    model: bytes
    samples: Mapping[str, np.ndarray]
    row: Mapping[str, np.ndarray]
    policy: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def tiny() -> Subject:
    """An MLP 64-128-10 that runs in microseconds: what is measured is everything but the model."""
    model = zoo.mlp()
    return _subject("tiny", model, zoo.random_inputs(model, 1000, seed=1), note="MLP 64-128-10: pure overhead")


def digits_network() -> Subject:
    data = digits.load()
    samples = {"image": data.training.images, "labels": data.training.labels}
    row = {"image": data.held_out.images[:1]}
    note = "the demo's residual network, 32x32 images, trained"
    return Subject("digits", digits.MODEL.read_bytes(), samples, row, note=note)


def resnet50() -> Subject:
    """ResNet-50 (He et al. 2015, stride in the 3x3) with random weights and fitted batch-norm statistics."""
    note = "random weights, fitted batch-norm statistics: its error means nothing, so its gate is cosine 0.97 alone"
    model, images = resnet50_model(seed=0), smooth_images(96, seed=1)
    return _subject("resnet50", model, {"image": images}, {"gate": {"cosine": 0.97}}, note)


def encoder() -> Subject:
    """A BERT-like encoder: 6 layers, 384 wide, 12 heads, 128 tokens, every row with padding of its own."""
    model = zoo.transformer(layers=6, width=384, heads=12, vocab=VOCABULARY)
    random = np.random.default_rng(2)
    lengths = random.integers(16, SEQUENCE + 1, 256)
    mask = (np.arange(SEQUENCE) < lengths[:, None]).astype(np.int64)
    ids = random.integers(1, VOCABULARY, mask.shape) * mask
    note = "BERT-like encoder, 6 layers, 384 wide, 12 heads, sequence 128, random weights"
    return _subject("encoder", model, {"input_ids": ids, "attention_mask": mask}, note=note)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "tiny": tiny,
    "digits": digits_network,
    "resnet50": resnet50,
    "encoder": encoder,
}


def smooth_images(count: int, seed: int) -> np.ndarray:
    """[count, 3, 224, 224] float32, mean 0 and deviation 1: blobs of colour at several scales, as pictures have."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, 3, 224, 224), np.float32)
    for side in (4, 14, 56, 224):
        noise = random.standard_normal((count, 3, side, side), dtype=np.float32)
        images += np.kron(noise, np.ones((1, 1, 224 // side, 224 // side), np.float32)) * (4 / side) ** 0.5
    images -= images.mean()
    images /= images.std()
    return images


def _subject(
    name: str,
    model: onnx.ModelProto,
    samples: Mapping[str, np.ndarray],
    policy: Mapping[str, Any] | None = None,
    note: str = "",
) -> Subject:
    row = {key: value[:1] for key, value in samples.items()}
    return Subject(name, model.SerializeToString(), samples, row, policy or {}, note)


def resnet50_model(seed: int) -> onnx.ModelProto:
    """Built twice with the same weights: once to measure the statistics batch by batch, once with them as constants."""
    import onnxruntime

    probe = _ResNet(seed, statistics=None)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(probe.finish().SerializeToString(), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    runs = [session.run(names, {"image": smooth_images(8, seed=10 + batch)}) for batch in range(3)]
    fitted = dict(zip(names, (np.mean(values, axis=0) for values in zip(*runs, strict=True)), strict=True))
    return _ResNet(seed, statistics=fitted).finish()


class _ResNet:
    """With `statistics` None each norm uses its batch's own mean and variance and gives them as outputs."""

    def __init__(self, seed: int, statistics: Mapping[str, np.ndarray] | None) -> None:
        self.graph = zoo.Graph("resnet50", seed)
        self.statistics = statistics
        self.measured: dict[str, tuple[int, zoo.Shape]] = {}
        self.norms = 0

    def finish(self) -> onnx.ModelProto:
        g = self.graph
        x = g.node("Relu", self.convolution("image", 3, 64, 7, 2))
        x = g.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        inputs = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                x = self.bottleneck(x, inputs, 64 << stage, 2 if stage and not block else 1)
                inputs = 256 << stage
        pooled = g.node("Flatten", g.node("GlobalAveragePool", x), axis=1)
        g.node("Gemm", pooled, g.floats(inputs, 1000), g.floats(1000, scale=0.01), output="logits")
        image = {"image": (TensorProto.FLOAT, ("N", 3, 224, 224))}
        if self.statistics is None:
            return g.finish(image, self.measured)
        return g.finish(image, {"logits": (TensorProto.FLOAT, ("N", 1000))})

    def bottleneck(self, x: str, inputs: int, width: int, stride: int) -> str:
        g = self.graph
        y = g.node("Relu", self.convolution(x, inputs, width, 1, 1))
        y = g.node("Relu", self.convolution(y, width, width, 3, stride))
        y = self.convolution(y, width, 4 * width, 1, 1)
        shortcut = x if inputs == 4 * width else self.convolution(x, inputs, 4 * width, 1, stride)
        return g.node("Relu", g.node("Add", y, shortcut))

    def convolution(self, x: str, inputs: int, outputs: int, side: int, stride: int) -> str:
        g = self.graph
        pad = side // 2
        weight = g.floats(outputs, inputs, side, side)
        x = g.node("Conv", x, weight, kernel_shape=[side, side], pads=[pad] * 4, strides=[stride, stride])
        scale, shift = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
        self.norms += 1
        mean, variance = f"mean_{self.norms}", f"variance_{self.norms}"
        if self.statistics is None:
            return self.measured_norm(x, mean, variance)
        parts = (scale, shift, self.statistics[mean].ravel(), self.statistics[variance].ravel())
        return g.node("BatchNormalization", x, *(g.constant(part) for part in parts), epsilon=1e-5)

    def measured_norm(self, x: str, mean: str, variance: str) -> str:
        g = self.graph
        centred = g.node("Sub", x, g.node("ReduceMean", x, axes=[0, 2, 3], keepdims=1, output=mean))
        square = g.node("Mul", centred, centred)
        g.node("ReduceMean", square, axes=[0, 2, 3], keepdims=1, output=variance)
        shape = (1, "C", 1, 1)
        self.measured |= {mean: (TensorProto.FLOAT, shape), variance: (TensorProto.FLOAT, shape)}
        return g.node("Div", centred, g.node("Sqrt", g.node("Add", variance, g.constant(np.float32(1e-5)))))

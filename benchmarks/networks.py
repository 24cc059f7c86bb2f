"""Convolutional networks of the size people serve: random weights, batch-norm statistics fitted to smooth images.

With random weights and statistics of nothing, activations die out or explode within a few layers; fitted, they keep the
spread that trained networks have, which is what quantization meets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from tests import zoo


def resnet50(seed: int) -> onnx.ModelProto:
    """ResNet-50 (He et al. 2015, stride in the 3x3): image [N, 3, 224, 224] -> logits [N, 1000]."""
    return _fitted(_ResNet50, seed)


def mobilenet_v2(seed: int) -> onnx.ModelProto:
    """MobileNetV2 at width 1.0 (Sandler et al. 2018, table 2): image [N, 3, 224, 224] -> logits [N, 1000]."""
    return _fitted(_MobileNetV2, seed)


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


def _fitted(network: type[_Network], seed: int) -> onnx.ModelProto:
    """Built twice with the same weights: once to measure the statistics batch by batch, once with them as constants."""
    import onnxruntime

    probe = network(seed, statistics=None)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(probe.finish().SerializeToString(), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    runs = [session.run(names, {"image": smooth_images(8, seed=10 + batch)}) for batch in range(3)]
    fitted = dict(zip(names, (np.mean(values, axis=0) for values in zip(*runs, strict=True)), strict=True))
    return network(seed, statistics=fitted).finish()


class _Network(ABC):
    """With `statistics` None each norm uses its batch's own mean and variance and gives them as outputs."""

    name = ""

    def __init__(self, seed: int, statistics: Mapping[str, np.ndarray] | None) -> None:
        self.graph = zoo.Graph(self.name, seed)
        self.statistics = statistics
        self.measured: dict[str, tuple[int, zoo.Shape]] = {}
        self.norms = 0

    @abstractmethod
    def features(self) -> tuple[str, int]:
        """The last feature map, and its channels."""

    def finish(self) -> onnx.ModelProto:
        g = self.graph
        x, channels = self.features()
        pooled = g.node("Flatten", g.node("GlobalAveragePool", x), axis=1)
        g.node("Gemm", pooled, g.floats(channels, 1000), g.floats(1000, scale=0.01), output="logits")
        image = {"image": (TensorProto.FLOAT, ("N", 3, 224, 224))}
        if self.statistics is None:
            return g.finish(image, self.measured)
        return g.finish(image, {"logits": (TensorProto.FLOAT, ("N", 1000))})

    def convolution(self, x: str, inputs: int, outputs: int, side: int, stride: int, groups: int = 1) -> str:
        """With its norm."""
        g = self.graph
        weight = g.floats(outputs, inputs // groups, side, side)
        x = g.node(
            "Conv", x, weight, kernel_shape=[side, side], pads=[side // 2] * 4, strides=[stride, stride], group=groups
        )  # fmt: skip
        scale, shift = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
        self.norms += 1
        mean, variance = f"mean_{self.norms}", f"variance_{self.norms}"
        if self.statistics is None:
            return self._measured_norm(x, mean, variance)
        parts = (scale, shift, self.statistics[mean].ravel(), self.statistics[variance].ravel())
        return g.node("BatchNormalization", x, *(g.constant(part) for part in parts), epsilon=1e-5)

    def _measured_norm(self, x: str, mean: str, variance: str) -> str:
        g = self.graph
        centred = g.node("Sub", x, g.node("ReduceMean", x, axes=[0, 2, 3], keepdims=1, output=mean))
        square = g.node("Mul", centred, centred)
        g.node("ReduceMean", square, axes=[0, 2, 3], keepdims=1, output=variance)
        shape = (1, "C", 1, 1)
        self.measured |= {mean: (TensorProto.FLOAT, shape), variance: (TensorProto.FLOAT, shape)}
        return g.node("Div", centred, g.node("Sqrt", g.node("Add", variance, g.constant(np.float32(1e-5)))))


class _ResNet50(_Network):
    name = "resnet50"

    def features(self) -> tuple[str, int]:
        g = self.graph
        x = g.node("Relu", self.convolution("image", 3, 64, 7, 2))
        x = g.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        inputs = 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                x = self._bottleneck(x, inputs, 64 << stage, 2 if stage and not block else 1)
                inputs = 256 << stage
        return x, inputs

    def _bottleneck(self, x: str, inputs: int, width: int, stride: int) -> str:
        g = self.graph
        y = g.node("Relu", self.convolution(x, inputs, width, 1, 1))
        y = g.node("Relu", self.convolution(y, width, width, 3, stride))
        y = self.convolution(y, width, 4 * width, 1, 1)
        shortcut = x if inputs == 4 * width else self.convolution(x, inputs, 4 * width, 1, stride)
        return g.node("Relu", g.node("Add", y, shortcut))


class _MobileNetV2(_Network):
    name = "mobilenet-v2"

    def features(self) -> tuple[str, int]:
        x, inputs = self._relu6(self.convolution("image", 3, 32, 3, 2)), 32
        # expansion, channels, repeats, stride of the first
        for expansion, channels, repeats, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for block in range(repeats):
                x = self._inverted_residual(x, inputs, channels, expansion, stride if block == 0 else 1)
                inputs = channels
        return self._relu6(self.convolution(x, inputs, 1280, 1, 1)), 1280

    def _inverted_residual(self, x: str, inputs: int, outputs: int, expansion: int, stride: int) -> str:
        width = inputs * expansion
        y = x if expansion == 1 else self._relu6(self.convolution(x, inputs, width, 1, 1))
        y = self._relu6(self.convolution(y, width, width, 3, stride, groups=width))
        y = self.convolution(y, width, outputs, 1, 1)
        return self.graph.node("Add", x, y) if stride == 1 and inputs == outputs else y

    def _relu6(self, x: str) -> str:
        g = self.graph
        return g.node("Clip", x, g.constant(np.float32(0)), g.constant(np.float32(6)))

"""The demo's network in nothing but numpy: layers that run forwards and backwards over [N, H, W, C] activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
DECAY = 1e-3


class Layer(Protocol):
    """`forward` keeps what `backward` needs. Activations are [N, H, W, C]."""

    def forward(self, x: Array, training: bool) -> Array: ...

    def backward(self, dy: Array) -> Array: ...

    def weights(self) -> Iterator[Weight]: ...


class Weight:
    """A trained array with its gradient and its Adam moments (Kingma & Ba 2015, decoupled decay)."""

    def __init__(self, value: Array, decay: float = 0.0) -> None:
        self.value = value.astype(np.float32)
        self.gradient = np.zeros_like(self.value)
        self.decay = decay
        self._mean, self._square = np.zeros_like(self.value), np.zeros_like(self.value)

    def step(self, rate: float, t: int) -> None:
        self._mean += 0.1 * (self.gradient - self._mean)
        self._square += 0.001 * (self.gradient**2 - self._square)
        mean, square = self._mean / (1 - 0.9**t), self._square / (1 - 0.999**t)
        self.value -= rate * (mean / (np.sqrt(square) + 1e-8) + self.decay * self.value)


class Convolution:
    """3x3, padding 1, no bias: a matrix product over gathered patches."""

    def __init__(self, random: np.random.Generator, inputs: int, outputs: int, stride: int = 1) -> None:
        scale = np.sqrt(2 / (9 * inputs))
        self.weight = Weight(random.standard_normal((9 * inputs, outputs)) * scale, DECAY)
        self.inputs, self.outputs, self.stride = inputs, outputs, stride

    def forward(self, x: Array, training: bool) -> Array:
        self._shape = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        windows = windows[:, :: self.stride, :: self.stride].transpose(0, 1, 2, 4, 5, 3)
        self._patches = windows.reshape(-1, 9 * self.inputs)
        y: Array = self._patches @ self.weight.value
        return y.reshape(*windows.shape[:3], self.outputs)

    def backward(self, dy: Array) -> Array:
        flat = dy.reshape(-1, self.outputs)
        self.weight.gradient = self._patches.T @ flat
        patches = (flat @ self.weight.value.T).reshape(*dy.shape[:3], 3, 3, self.inputs)
        rows, height, width, channels = self._shape
        padded: Array = np.zeros((rows, height + 2, width + 2, channels), np.float32)
        for i in range(3):
            for j in range(3):
                padded[:, i : i + height : self.stride, j : j + width : self.stride] += patches[:, :, :, i, j]
        return padded[:, 1:-1, 1:-1]

    def weights(self) -> Iterator[Weight]:
        yield self.weight

    def onnx_weight(self) -> Array:
        """[outputs, inputs, 3, 3], as ONNX wants it."""
        return self.weight.value.reshape(3, 3, self.inputs, self.outputs).transpose(3, 2, 0, 1)


class BatchNorm:
    """Over every axis but the channels. `mean` and `variance` are set over the whole training set at the end."""

    EPSILON = 1e-5

    def __init__(self, channels: int) -> None:
        self.scale, self.shift = Weight(np.ones(channels)), Weight(np.zeros(channels))
        self.mean, self.variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        self.collected: list[tuple[Array, Array]] = []

    def forward(self, x: Array, training: bool) -> Array:
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            self.collected.append((mean, variance))
        self._inverse = 1 / np.sqrt(variance + self.EPSILON)
        self._normal = (x - mean) * self._inverse
        y: Array = self._normal * self.scale.value + self.shift.value
        return y

    def backward(self, dy: Array) -> Array:
        self.scale.gradient, self.shift.gradient = (dy * self._normal).sum((0, 1, 2)), dy.sum((0, 1, 2))
        dn = dy * self.scale.value
        dx: Array = self._inverse * (dn - dn.mean((0, 1, 2)) - self._normal * (dn * self._normal).mean((0, 1, 2)))
        return dx

    def settle(self) -> None:
        """Make the statistics seen since the last reset the ones used for inference."""
        self.mean, self.variance = (np.mean(part, axis=0) for part in zip(*self.collected, strict=True))

    def weights(self) -> Iterator[Weight]:
        yield self.scale
        yield self.shift


class Block:
    """Convolution, batch norm, rectifier."""

    def __init__(self, random: np.random.Generator, inputs: int, outputs: int, stride: int = 1) -> None:
        self.convolution, self.norm = Convolution(random, inputs, outputs, stride), BatchNorm(outputs)

    def forward(self, x: Array, training: bool) -> Array:
        y: Array = np.maximum(self.norm.forward(self.convolution.forward(x, training), training), 0)
        self._positive = y > 0
        return y

    def backward(self, dy: Array) -> Array:
        return self.convolution.backward(self.norm.backward(dy * self._positive))

    def weights(self) -> Iterator[Weight]:
        yield from self.convolution.weights()
        yield from self.norm.weights()


class Residual:
    """x + block(block(x))."""

    def __init__(self, random: np.random.Generator, channels: int) -> None:
        self.first, self.second = Block(random, channels, channels), Block(random, channels, channels)

    def forward(self, x: Array, training: bool) -> Array:
        return x + self.second.forward(self.first.forward(x, training), training)

    def backward(self, dy: Array) -> Array:
        return dy + self.first.backward(self.second.backward(dy))

    def weights(self) -> Iterator[Weight]:
        yield from self.first.weights()
        yield from self.second.weights()


class Head:
    """Mean over the image, then a dense layer to ten logits."""

    def __init__(self, random: np.random.Generator, channels: int) -> None:
        self.weight = Weight(random.standard_normal((channels, 10)) / np.sqrt(channels), DECAY)
        self.bias = Weight(np.zeros(10))

    def forward(self, x: Array, training: bool) -> Array:
        self._shape, self._pooled = x.shape, x.mean((1, 2))
        logits: Array = self._pooled @ self.weight.value + self.bias.value
        return logits

    def backward(self, dy: Array) -> Array:
        self.weight.gradient, self.bias.gradient = self._pooled.T @ dy, dy.sum(0)
        pixels = self._shape[1] * self._shape[2]
        return np.broadcast_to((dy @ self.weight.value.T)[:, None, None] / pixels, self._shape)

    def weights(self) -> Iterator[Weight]:
        yield self.weight
        yield self.bias


@dataclass
class Network:
    layers: list[Layer]

    def forward(self, images: Array, training: bool = False) -> Array:
        x = images.transpose(0, 2, 3, 1)
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, dy: Array) -> None:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)

    def weights(self) -> list[Weight]:
        return [weight for layer in self.layers for weight in layer.weights()]

    def blocks(self) -> Iterator[Block]:
        for layer in self.layers:
            if isinstance(layer, Block):
                yield layer
            elif isinstance(layer, Residual):
                yield from (layer.first, layer.second)


def network(random: np.random.Generator) -> Network:
    """32x32 pixels: 32 channels, 64 at 16x16 with one residual pair, 64 at 8x8 with another, head."""
    return Network(
        [
            Block(random, 1, 32),
            Block(random, 32, 64, stride=2),
            Residual(random, 64),
            Block(random, 64, 64, stride=2),
            Residual(random, 64),
            Head(random, 64),
        ]
    )

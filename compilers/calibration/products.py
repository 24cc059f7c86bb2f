"""Operators that multiply an input by a constant weight, and the matrix of input rows each of them sees.

Whatever works on such a product by least squares needs the rows X [n, K] that meet its weight [K outputs]: the last
axis of a MatMul's or Gemm's input, every patch of a Conv's (im2col; K = inputs per group x kernel).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

CHUNK_BYTES = 32 << 20
"""Of copied patches at a time."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Input of a MatMul or Gemm as rows [n, K]; depth: K; `turned`: a Gemm with transA."""

    tensor: str
    depth: int
    turned: bool = False

    @property
    def key(self) -> str:
        return f"{self.tensor}|turned" if self.turned else self.tensor

    @property
    def groups(self) -> int:
        return 1

    def chunks(self, array: np.ndarray) -> Iterator[np.ndarray]:
        """Rows as [1, n, K] parts."""
        matrix = array.T if self.turned else array.reshape(-1, array.shape[-1])
        step = max(1, CHUNK_BYTES // max(1, matrix.shape[1] * 4))
        for start in range(0, len(matrix), step):
            yield matrix[None, start : start + step]

    def sums(self, array: np.ndarray) -> tuple[np.ndarray, int]:
        """Sum of the rows [1, K] and their number."""
        matrix = array.T if self.turned else array.reshape(-1, array.shape[-1])
        return matrix.sum(axis=0, dtype=np.float64)[None], len(matrix)

    def by_channel(self, array: np.ndarray) -> np.ndarray:
        """The input as [C, values]."""
        matrix: np.ndarray = array if self.turned else array.reshape(-1, array.shape[-1]).T
        return matrix


@dataclass(frozen=True, slots=True)
class Patches:
    """Input of a Conv [N, C, ...] as patches [groups, n, K]. `pads`: begins, then ends, per spatial axis."""

    tensor: str
    depth: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int
    auto_pad: str = "NOTSET"

    @property
    def key(self) -> str:
        figures = "/".join(
            "x".join(map(str, figure)) for figure in (self.kernel, self.strides, self.pads, self.dilations)
        )
        return f"{self.tensor}|{figures}/{self.groups}/{self.auto_pad}"

    def chunks(self, array: np.ndarray) -> Iterator[np.ndarray]:
        for sample in array:
            windows = self._windows(sample)  # [C, out..., kernel...]
            row_bytes = (
                4 * sample.shape[0] * math.prod(self.kernel) * math.prod(windows.shape[2 : 1 + len(self.kernel)])
            )
            step = max(1, CHUNK_BYTES // max(1, row_bytes))
            for start in range(0, windows.shape[1], step):
                yield self._matrix(windows[:, start : start + step])

    def sums(self, array: np.ndarray) -> tuple[np.ndarray, int]:
        # The sum of patches is the patches of the sum: linear, so samples are added first.
        windows = self._windows(array.sum(axis=0, dtype=np.float64))
        out = tuple(range(1, 1 + len(self.kernel)))
        places = math.prod(windows.shape[axis] for axis in out)
        return windows.sum(axis=out).reshape(self.groups, -1), places * len(array)

    def by_channel(self, array: np.ndarray) -> np.ndarray:
        return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)

    def _windows(self, sample: np.ndarray) -> np.ndarray:
        """Every patch of one sample [C, ...] as a view [C, out..., kernel...]."""
        spatial = range(len(self.kernel))
        spans = [self.dilations[axis] * (self.kernel[axis] - 1) + 1 for axis in spatial]
        padded = np.pad(
            sample, [(0, 0), *(self._padding(axis, sample.shape[1 + axis], spans[axis]) for axis in spatial)]
        )
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(1 + axis for axis in spatial))
        chosen = (slice(None), *(slice(None, None, step) for step in (*self.strides, *self.dilations)))
        view: np.ndarray = windows[chosen]
        return view

    def _padding(self, axis: int, size: int, span: int) -> tuple[int, int]:
        if self.auto_pad in ("NOTSET", ""):
            return self.pads[axis], self.pads[len(self.kernel) + axis]
        if self.auto_pad == "VALID":
            return 0, 0
        stride = self.strides[axis]
        total = max(0, (math.ceil(size / stride) - 1) * stride + span - size)
        small = total // 2
        return (small, total - small) if self.auto_pad == "SAME_UPPER" else (total - small, small)

    def _matrix(self, windows: np.ndarray) -> np.ndarray:
        rank, channels = len(self.kernel), windows.shape[0]
        places = math.prod(windows.shape[1 : 1 + rank])
        kernel = math.prod(self.kernel)
        flat = windows.reshape(self.groups, channels // self.groups, places, kernel)
        return np.ascontiguousarray(flat.transpose(0, 2, 1, 3)).reshape(self.groups, places, -1)


View = Rows | Patches


@dataclass(frozen=True, slots=True)
class Product:
    """One node: how it sees its input, which initializer is its weight and on which axis that has its outputs."""

    node: str
    kind: str
    view: View
    weight: str
    axis: int

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The weight as [groups, outputs per group, K]."""
        rows = np.moveaxis(weight, self.axis, 0)
        return np.ascontiguousarray(rows).reshape(self.view.groups, len(rows) // self.view.groups, -1)

    def weight_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """The inverse of `matrix`."""
        turned = [shape[self.axis], *(size for axis, size in enumerate(shape) if axis != self.axis)]
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(turned), 0, self.axis))


def products(model: ir.Model) -> list[Product]:
    """Every MatMul, Gemm and Conv of the main graph whose second input is a float32 initializer."""
    found = (_product(node) for node in model.graph if node.domain == "" and len(node.inputs) > 1)
    return [product for product in found if product is not None]


def _product(node: ir.Node) -> Product | None:
    value, source = node.inputs[1], node.inputs[0]
    weight = value.const_value if value is not None and value.is_initializer() else None
    if weight is None or source is None or weight.dtype != ir.DataType.FLOAT or source.const_value is not None:
        return None
    name, tensor, get = str(value.name), str(source.name), node.attributes.get_int  # type: ignore[union-attr]
    rank = len(weight.shape)
    shape = weight.shape.numpy()
    if node.op_type == "MatMul" and rank == 2:
        return Product(str(node.name), "MatMul", Rows(tensor, int(shape[0])), name, 1)
    if node.op_type == "Gemm":
        axis = 0 if get("transB", 0) else 1
        return Product(str(node.name), "Gemm", Rows(tensor, int(shape[1 - axis]), bool(get("transA", 0))), name, axis)
    if node.op_type == "Conv" and rank > 2:
        spatial = rank - 2
        kernel = tuple(int(size) for size in shape[2:])
        ints = node.attributes.get_ints
        view = Patches(
            tensor,
            math.prod(int(size) for size in shape[1:]),
            kernel,
            tuple(ints("strides") or (1,) * spatial),
            tuple(ints("pads") or (0,) * (2 * spatial)),
            tuple(ints("dilations") or (1,) * spatial),
            int(get("group", 1) or 1),
            node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET",
        )
        return Product(str(node.name), "Conv", view, name, 0)
    return None

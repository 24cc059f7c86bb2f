"""SmoothQuant: move what is hard to quantize in an activation into the weight (Xiao et al., 2023, arXiv:2211.10438).

A few channels of a transformer's activations are a hundred times larger than the others, and one scale for all leaves
the others nothing. Dividing channel j by s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) and multiplying row j of the
weight by it changes no answer. The division goes where it costs nothing (a LayerNormalization, a constant factor, the
product before a Relu); where it cannot, a Mul is put in front.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from compilers.calibration import Calibration
from compilers.calibration.calibrate import calibrated
from compilers.calibration.products import Product, Rows, products
from compilers.calibration.statistics import Statistics
from compilers.passes.absorb import absorb
from compilers.passes.constants import own_constant, unused_name
from compilers.passes.graph import constant, is_quantized, need, need_products
from compilers.passes.shapes import with_shapes

NEEDED = ("MatMul", "Gemm", "Conv")

ALPHA = 0.7
"""Between the paper's 0.5 and the 0.85 of its repository: a sentence encoder in dynamic int8 keeps 18.9 dB as it is,
16.7 dB after 0.5, 22.7 dB after 0.65 and 21.6 dB after 0.8."""

EVEN = 1.05
"""Factors that lie this near to one another smooth nothing."""


class SmoothQuant(ir.passes.FunctionalPass):
    """`alpha`: how much of the difficulty moves into the weights, 0 to 1. `convolutions`: smooth Conv, too.

    A convolution is smoothed only where the division costs nothing: its input is large.
    """

    def __init__(
        self,
        calibration: Calibration,
        statistics: Statistics | None = None,
        alpha: float = ALPHA,
        convolutions: bool = False,
    ) -> None:
        self.calibration = calibration
        self.statistics = statistics
        self.alpha = alpha
        self.convolutions = convolutions

    def requires(self, model: ir.Model) -> None:
        need(0 <= self.alpha <= 1, f"alpha is between 0 and 1, not {self.alpha:g}")
        need_products(model, NEEDED)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if is_quantized(model):
            return ir.passes.PassResult(model.clone(), modified=False)
        work = ir.from_proto(with_shapes(ir.to_proto(model)))
        groups = self._groups(work)
        with calibrated(work, self.calibration, self.statistics, tensors=set(groups)) as seen:
            # The last first: what it moves into a product before it is there when that one's turn comes.
            smoothed = [self._smooth(work.graph, group, seen) for group in reversed(groups.values())]
        if any(smoothed):
            common.RemoveUnusedNodesPass()(work)  # the weights of before
        return ir.passes.PassResult(work if any(smoothed) else model.clone(), modified=any(smoothed))

    def _groups(self, model: ir.Model) -> dict[str, list[Product]]:
        """Products by the tensor they read: they share its factors."""
        groups: dict[str, list[Product]] = {}
        for product in products(model):
            plain = isinstance(product.view, Rows) and not product.view.turned
            if plain or (self.convolutions and product.kind == "Conv"):
                groups.setdefault(product.view.tensor, []).append(product)
        return {
            tensor: group for tensor, group in groups.items() if len({product.kind == "Conv" for product in group}) == 1
        }

    def _smooth(self, graph: ir.Graph, group: Sequence[Product], seen: Statistics) -> bool:
        statistics = seen.product(group[0].view)
        nodes = {str(node.name): node for node in graph}
        users = [nodes[product.node] for product in group]
        if statistics is None:
            return False
        weights = [_weight(node) for node in users]
        factor = self._factor(statistics.absmax, [_largest(*pair) for pair in zip(group, weights, strict=True)])
        if factor is None:
            return False
        source = users[0].inputs[0]
        assert source is not None
        alone = not source.is_graph_output() and all(use.node in users and use.idx == 0 for use in source.uses())
        axis = 1 if group[0].kind == "Conv" else -1
        if not (alone and absorb(graph, source, 1 / factor, axis)):
            if axis == 1:
                return False
            _divide(graph, source, users, factor)
        for product, weight, node in zip(group, weights, users, strict=True):
            _scale_rows(graph, product, weight, node, factor)
        return True

    def _factor(self, inputs: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        """s [C], float32; one where a channel or its weights are all zero. None where there is nothing to smooth."""
        weights = np.max(rows, axis=0)
        used = (inputs > 0) & (weights > 0)
        if not used.any():
            return None
        factor = np.ones(len(inputs))
        factor[used] = inputs[used].astype(np.float64) ** self.alpha / weights[used] ** (1 - self.alpha)
        # Only ratios matter: around one, so that neither side leaves the range of its type.
        factor[used] /= np.exp(np.mean(np.log(factor[used])))
        spread = factor[used].max() / factor[used].min()
        return None if spread < EVEN else factor.astype(np.float32)


def _weight(node: ir.Node) -> np.ndarray:
    tensor = constant(node.inputs[1])
    assert tensor is not None, "a product's weight is constant"
    return tensor.numpy()


def _largest(product: Product, weight: np.ndarray) -> np.ndarray:
    """The largest absolute weight that meets each input channel [C]."""
    matrix = np.abs(product.matrix(weight))  # [groups, outputs, inputs per group * kernel]
    channels = matrix.shape[2] if product.kind != "Conv" else weight.shape[1]
    by_channel = matrix.reshape(matrix.shape[0], matrix.shape[1], channels, -1)
    largest: np.ndarray = by_channel.max(axis=(1, 3)).reshape(-1).astype(np.float64)
    return largest


def _scale_rows(graph: ir.Graph, product: Product, weight: np.ndarray, node: ir.Node, factor: np.ndarray) -> None:
    matrix = product.matrix(weight)
    taps = matrix.shape[2] // (len(factor) // matrix.shape[0])
    spread = np.repeat(factor.reshape(matrix.shape[0], 1, -1), taps, axis=2)
    own_constant(
        graph, node, 1, product.weight_of(matrix * spread, weight.shape), f"{node.outputs[0].name}.smooth.weight"
    )


def _divide(graph: ir.Graph, source: ir.Value, users: Sequence[ir.Node], factor: np.ndarray) -> None:
    """Put a Mul by 1 / factor between `source` and the products."""
    name = unused_name(graph, f"{source.name}.smooth")
    divide = ir.Node("", "Mul", [source, None], name=name)
    own_constant(graph, divide, 1, (1 / factor).astype(np.float32), f"{name}.factor")
    output = divide.outputs[0]
    output.name, output.type, output.shape = f"{name}.output", source.type, source.shape
    first = next(node for node in graph if node in users)
    graph.insert_before(first, divide)
    for node in users:
        node.replace_input_with(0, output)

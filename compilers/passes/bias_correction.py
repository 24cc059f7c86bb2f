"""Take back what rounding a weight does to the *mean* of its outputs: b += (W - W^) mu.

A rounding error of the weight that meets inputs of non-zero mean shifts every output the same way (Nagel et al.,
"Data-Free Quantization through Weight Equalization and Bias Correction", 2019); mu, the mean input, is the samples'.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from compilers.calibration.products import Product
from compilers.calibration.statistics import Statistics
from compilers.passes.constants import own_constant
from compilers.passes.graph import constant


def correct_bias(graph: ir.Graph, node: ir.Node, product: Product, error: np.ndarray, seen: Statistics) -> bool:
    """Move the node's bias by `error` (W - W^, the weight's shape) times the mean input; False where there is no bias.

    The bias is the node's own (Conv, Gemm: made where it has none), or the vector added to a MatMul's output.
    """
    statistics = seen.product(product.view)
    if statistics is None:
        return False
    shift = np.einsum("gok,gk->go", product.matrix(error).astype(np.float64), statistics.mean).reshape(-1)
    if product.kind != "MatMul":
        alpha, beta = (
            node.attributes.get_float(name, 1.0) if product.kind == "Gemm" else 1.0 for name in ("alpha", "beta")
        )
        given = node.inputs[2] if len(node.inputs) > 2 else None
        bias = np.zeros(len(shift)) if given is None else _vector(given, len(shift))
        if bias is None or not beta:
            return False
        own_constant(graph, node, 2, (bias + shift * alpha / beta).astype(np.float32), f"{node.outputs[0].name}.bias")
        return True
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add" or node.outputs[0].is_graph_output():
        return False
    place = 1 - uses[0].idx
    bias = _vector(uses[0].node.inputs[place], len(shift))
    if bias is None:
        return False
    moved = (bias + shift).astype(np.float32)
    own_constant(graph, uses[0].node, place, moved, f"{uses[0].node.outputs[0].name}.bias")
    return True


def _vector(value: ir.Value | None, length: int) -> np.ndarray | None:
    tensor = constant(value)
    if (
        tensor is None
        or tensor.numpy().size not in (1, length)
        or tensor.numpy().shape[-1:] not in ((), (1,), (length,))
    ):
        return None
    return np.broadcast_to(tensor.numpy().astype(np.float64).reshape(-1), (length,))

"""Fold an inference-time BatchNormalization into the Conv, ConvTranspose or Gemm before it.

y = (x - mean) * scale / sqrt(var + epsilon) + offset is affine per channel, so it moves into weight and bias
(Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018,
section 3.2). A quantizer that meets an unfolded one puts a float island after every convolution.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from compilers.passes.constants import own_constant
from compilers.passes.graph import constant


class FoldBatchNorm(ir.passes.InPlacePass):
    """Fold every BatchNormalization whose figures are constant and whose producer feeds nothing else."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        norms = [node for node in model.graph if node.op_type == "BatchNormalization" and node.domain == ""]
        folded = [_fold(model.graph, norm) for norm in norms]
        if any(folded):
            common.RemoveUnusedNodesPass()(model)  # the figures of the folded nodes
        return ir.passes.PassResult(model, modified=any(folded))


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    """Fold one node; False, and nothing touched, where it cannot be."""
    producer = norm.inputs[0].producer() if norm.inputs[0] is not None else None
    affine = _affine(norm)
    if affine is None or producer is None or not _feeds_only(producer, norm) or len(producer.inputs) < 2:
        return False
    factor, offset = affine
    weight = constant(producer.inputs[1])
    if weight is None or weight.dtype != norm.inputs[1].dtype:  # type: ignore[union-attr]
        return False
    spread = _over_weight(producer, weight.numpy().shape, factor)
    bias = _bias(producer, len(factor))
    if spread is None or bias is None:
        return False
    kind = weight.numpy().dtype
    stem = norm.outputs[0].name
    own_constant(graph, producer, 1, (weight.numpy().astype(np.float64) * spread).astype(kind), f"{stem}.weight")
    own_constant(graph, producer, 2, (bias * factor + offset).astype(kind), f"{stem}.bias")
    if producer.op_type == "Gemm":
        producer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)  # now inside the bias
    _remove(graph, norm, producer.outputs[0])
    return True


def _affine(norm: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and offset per channel [C], float64; None when a request or training could change them."""
    figures = [constant(value) for value in norm.inputs[1:5]]
    unused = all(not output.uses() and not output.is_graph_output() for output in norm.outputs[1:])
    if len(figures) < 4 or not unused or norm.attributes.get_int("training_mode", 0) != 0:
        return None
    scale, shift, mean, variance = (figure.numpy().astype(np.float64) for figure in figures if figure is not None)
    factor = scale / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    return factor, shift - mean * factor


def _feeds_only(producer: ir.Node, consumer: ir.Node) -> bool:
    output = producer.outputs[0]
    return (
        producer.op_type in ("Conv", "ConvTranspose", "Gemm")
        and producer.domain == ""
        and producer.graph is consumer.graph
        and [user for user, _ in output.uses()] == [consumer]
        and not output.is_graph_output()
    )


def _over_weight(producer: ir.Node, shape: tuple[int, ...], factor: np.ndarray) -> np.ndarray | None:
    """`factor` [C] laid out so that it multiplies the weight; None when the channels do not match."""
    channels = len(factor)
    if producer.op_type == "Gemm":
        across = bool(producer.attributes.get_int("transB", 0))
        spread = factor[:, None] if across else factor[None, :]
        return spread if shape[0 if across else 1] == channels else None
    trailing = (1,) * (len(shape) - 2)
    if producer.op_type == "Conv":  # [C, inputs / groups, ...]
        return factor.reshape(channels, 1, *trailing) if shape[0] == channels else None
    groups = producer.attributes.get_int("group", 1) or 1  # ConvTranspose: [inputs, C / groups, ...]
    if shape[1] * groups != channels:
        return None
    return np.repeat(factor.reshape(groups, shape[1]), shape[0] // groups, axis=0).reshape(*shape[:2], *trailing)


def _bias(producer: ir.Node, channels: int) -> np.ndarray | None:
    """The producer's bias [C], float64; zeros where it has none, None where it is no constant vector."""
    value = producer.inputs[2] if len(producer.inputs) > 2 else None
    if value is None:
        return np.zeros(channels)
    tensor = constant(value)
    if (
        tensor is None
        or tensor.numpy().size not in (1, channels)
        or tensor.numpy().shape[-1:] not in ((), (1,), (channels,))
    ):
        return None
    beta = producer.attributes.get_float("beta", 1.0) if producer.op_type == "Gemm" else 1.0
    return np.broadcast_to(tensor.numpy().astype(np.float64).reshape(-1) * beta, (channels,))


def _remove(graph: ir.Graph, norm: ir.Node, source: ir.Value) -> None:
    """Let `source` take the place, and the name, of the node's output."""
    output = norm.outputs[0]
    name, kind, shape = output.name, output.type, output.shape
    ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    source.name, source.type, source.shape = name, kind or source.type, shape or source.shape

"""What a low precision makes of a node, simulated in the float model: its inputs rounded as that precision holds them.

int8: weights symmetric per output channel, activations uint8 per tensor between the extremes seen. bf16, fp16: weights
and activations through the type and back, so the arithmetic stays float32 and only what is stored loses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compilers.passes.kinds import PRODUCTS

Precision = Literal["int8", "bf16", "fp16"]
Extremes = Mapping[str, tuple[float, float]]

_TYPES = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node and which of its inputs would be rounded: constants (weights) and activations."""

    node: onnx.NodeProto
    weights: Mapping[int, np.ndarray]
    activations: tuple[int, ...]


def candidates(model: onnx.ModelProto, kinds: Sequence[str]) -> list[Candidate]:
    """The nodes of `kinds` that have a name and one output, and read a float activation."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = _float_tensors(model)
    found = []
    for node in model.graph.node:
        if node.op_type not in kinds or not node.name or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            continue
        # A bias (the third input of a product) is added in 32 bits: it costs nothing.
        reach = 2 if node.op_type in PRODUCTS else 1 if node.op_type == "Resize" else len(node.input)
        places = [place for place, name in enumerate(node.input[:reach]) if name]
        weights = {
            place: numpy_helper.to_array(constants[node.input[place]])
            for place in places
            if node.input[place] in constants and constants[node.input[place]].data_type == TensorProto.FLOAT
        }
        activations = tuple(
            place for place in places if node.input[place] not in constants and node.input[place] in floats
        )
        if len(weights) + len(activations) == len(places) and activations:
            found.append(Candidate(node, weights, activations))
    return found


def rounded_input(
    graph: onnx.GraphProto, candidate: Candidate, place: int, extremes: Extremes, precision: Precision, prefix: str
) -> str | None:
    """Add the rounded twin of an input to `graph`; its name, or None where the input stays as it is."""
    name = f"forgeway_{prefix}_{place}"
    if place in candidate.weights:
        graph.initializer.append(numpy_helper.from_array(_rounded(candidate, place, precision), name))
        return name
    if place not in candidate.activations:
        return None
    source = candidate.node.input[place]
    if precision == "int8":
        low, high = extremes[source]
        scale = (high - low) / 255 or 1.0
        zero = int(np.clip(np.rint(-low / scale), 0, 255))
        graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"))
        graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), f"{name}_zero"))
        ends = [f"{name}_scale", f"{name}_zero"]
        graph.node.append(helper.make_node("QuantizeLinear", [source, *ends], [f"{name}_low"]))
        graph.node.append(helper.make_node("DequantizeLinear", [f"{name}_low", *ends], [name]))
    else:
        graph.node.append(helper.make_node("Cast", [source], [f"{name}_low"], to=_TYPES[precision]))
        graph.node.append(helper.make_node("Cast", [f"{name}_low"], [name], to=TensorProto.FLOAT))
    return name


def _rounded(candidate: Candidate, place: int, precision: Precision) -> np.ndarray:
    """The weight as the precision holds it; of int8 on the grid with a scale an output channel."""
    weight, node = candidate.weights[place], candidate.node
    if precision != "int8":
        low = helper.tensor_dtype_to_np_dtype(_TYPES[precision])
        return np.asarray(weight.astype(low).astype(np.float32))
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    axis = 1 if node.op_type == "ConvTranspose" else 0 if node.op_type == "Conv" or transposed else weight.ndim - 1
    others = tuple(other for other in range(weight.ndim) if other != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True, initial=0.0) / 127
    scale = np.where(scale == 0, 1, scale)
    return np.asarray(np.clip(np.rint(weight / scale), -127, 127) * scale, np.float32)


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of float32 activations, as far as inference knows; what is unknown is left out."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    typed = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}

"""Shapes and types of every tensor for inputs of given sizes, inferred without the weights.

Only small constants (shapes, axes) take part with their values; large ones are stood in for by their shape, so that
inferring costs neither the memory nor the time of copying them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from compilers.passes.shapes import symbolic

_SMALL = 1024
"""Elements of a constant that is still passed with its value."""


@dataclass(frozen=True, slots=True)
class Known:
    """By tensor name; a tensor is missing where inference cannot tell. `types` are those of onnx.TensorProto."""

    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, int]


def infer(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> Known:
    """Infer with the inputs fixed at `sizes`: quickly by ONNX, and what that leaves open by ONNX Runtime's tool."""
    light = _without_weights(model, sizes)
    known = _known(model, onnx.shape_inference.infer_shapes(light, data_prop=True))
    if all(output in known.shapes for node in light.graph.node for output in node.output if output):
        return known
    try:
        more = _known(model, symbolic(light))
    except Exception:  # the tool raises anything on operators it does not know: their shapes stay unknown
        return known
    return Known({**more.shapes, **known.shapes}, {**more.types, **known.types})


def _known(model: onnx.ModelProto, light: onnx.ModelProto) -> Known:
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, int] = {}
    for tensor in model.graph.initializer:
        shapes[tensor.name], types[tensor.name] = tuple(tensor.dims), tensor.data_type
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    shapes[node.output[0]], types[node.output[0]] = tuple(attribute.t.dims), attribute.t.data_type
    for info in (*light.graph.value_info, *light.graph.input, *light.graph.output):
        tensor_type = info.type.tensor_type
        types[info.name] = tensor_type.elem_type
        if tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor_type.shape.dim):
            shapes[info.name] = tuple(dim.dim_value for dim in tensor_type.shape.dim)
    return Known(shapes, types)


def _without_weights(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    held = {tensor.name for tensor in model.graph.initializer}
    for given in model.graph.input:
        if given.name not in held:
            fixed = given.type.tensor_type
            shape = sizes.get(given.name, [dim.dim_value or 1 for dim in fixed.shape.dim])
            graph.input.append(helper.make_tensor_value_info(given.name, fixed.elem_type, list(shape)))
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for output in model.graph.output:
        graph.output.append(helper.make_empty_tensor_value_info(output.name))
    return light

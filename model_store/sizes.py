"""How large the values inside a model are, as far as can be known before it runs.

Shape inference also evaluates what feeds shapes, so a `ConstantOfShape` of a constant 10^12 is found without making it.
It does not look into the branches of `If` and the bodies of `Loop` with the constants around them, so those are laid
out flat beside the graph first. What depends on the values of a request is bounded when the request runs.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from types import MappingProxyType

import onnx

from model_store.contents import survey
from model_store.errors import InvalidModel
from model_store.payload import BITS

MOST_VALUE_BYTES = 1 << 31
"""Bytes of one value whose size is known beforehand; larger ones are only made to exhaust a host."""

_SMALL_TENSOR = 4_096
"""Bytes up to which a weight may be a shape, an index or a limit, and so matters to shape inference."""


def check_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inferred shapes and without its large weights. Raises InvalidModel naming an absurd value.

    Runs without the large weights because their values say nothing about shapes, and copying them is what would cost.
    """
    skeleton = _without_weights(model)
    inferred = _inferred(skeleton)
    _check_values(inferred)
    if any(_subgraphs(node) for node in model.graph.node):
        _lay_flat(skeleton)
        _check_values(_inferred(skeleton))
    return inferred


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as exc:
        raise InvalidModel(f"the shapes of the model contradict one another: {exc}") from None


def _check_values(model: onnx.ModelProto) -> None:
    for graph in survey(model).graphs:
        for value in (*graph.input, *graph.output, *graph.value_info):
            _check_size(value)


def _check_size(value: onnx.ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim if dim.dim_value > 0]
    count = math.prod(sizes)
    size = count * BITS.get(tensor.elem_type, 64) // 8
    if size > MOST_VALUE_BYTES and not any(
        dim.HasField("dim_value") and dim.dim_value == 0 for dim in tensor.shape.dim
    ):
        shape = "x".join(str(dim.dim_value) if dim.dim_value > 0 else "?" for dim in tensor.shape.dim)
        raise InvalidModel(
            f"the value {value.name[:80]!r} would have the shape {shape}: at least {count:,} elements, "
            f"{size / 1e9:,.1f} GB; at most {MOST_VALUE_BYTES / 1e9:.1f} GB are taken for one value"
        )


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    for name in ("node", "input", "output", "value_info"):
        getattr(graph, name).extend(getattr(model.graph, name))
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) * BITS.get(tensor.data_type, 8) // 8 <= _SMALL_TENSOR:
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return skeleton


def _lay_flat(model: onnx.ModelProto) -> None:
    """Copy the nodes of every subgraph into the graph itself, before the node that holds it, their values renamed."""
    flat: list[onnx.NodeProto] = []
    for node in model.graph.node:
        for graph in _subgraphs(node):
            _copy_flat(graph, {}, model.graph, flat)
        flat.append(_copy(node))
    model.graph.ClearField("node")
    model.graph.node.extend(flat)


def _copy_flat(
    graph: onnx.GraphProto, outer: dict[str, str], into: onnx.GraphProto, flat: list[onnx.NodeProto]
) -> None:
    prefix = secrets.token_hex(8)  # not to be guessed by who named the values
    names = dict(outer)
    for value in graph.input:
        names[value.name] = f"{prefix}/{value.name}"
        into.value_info.add(name=names[value.name], type=value.type)
    for tensor in graph.initializer:
        names[tensor.name] = f"{prefix}/{tensor.name}"
        copied = into.initializer.add()
        copied.CopyFrom(tensor)
        copied.name = names[tensor.name]
    for node in graph.node:
        for inner in _subgraphs(node):
            _copy_flat(inner, names, into, flat)
        names.update((output, f"{prefix}/{output}") for output in node.output if output)
        flat.append(_copy(node, names))


def _copy(node: onnx.NodeProto, names: Mapping[str, str] = MappingProxyType({})) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    for field in ("input", "output") if names else ():
        renamed = [names.get(name, name) for name in getattr(node, field)]
        copied.ClearField(field)
        getattr(copied, field).extend(renamed)
    return copied


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [
        graph
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]

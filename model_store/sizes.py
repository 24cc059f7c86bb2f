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


def check_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every shape that can be inferred. Raises InvalidModel naming a value of absurd size."""
    inferred = _inferred(model)
    _check_values(inferred)
    if any(_subgraphs(node) for node in model.graph.node):
        flat = onnx.ModelProto()
        flat.CopyFrom(model)
        _lay_flat(flat)
        _check_values(_inferred(flat))
    return inferred


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as exc:  # the native code throws its own kinds and others, about the model all of them
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

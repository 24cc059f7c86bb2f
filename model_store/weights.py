"""The large weights of a model, kept apart from its graph while the graph is worked on.

Shape inference, ONNX's checker and serialisation each copy the model several times, and in a model of 100 MB all but
a few kilobytes of that are weights, which say nothing about the graph. So the native code sees a model whose large
weights are inputs of the same type and shape, and the file is written from that model and the weights in turn.
"""

from __future__ import annotations

import math
from pathlib import Path

import onnx

from model_store.errors import InvalidModel
from model_store.payload import BITS, MOST_BYTES

LARGE_BYTES = 1 << 16
"""From here on a weight is surely no shape, index or limit that shape inference would want to read."""

_GRAPH_IN_MODEL, _INITIALIZER_IN_GRAPH, _RAW_DATA_IN_TENSOR = 7, 5, 9
"""Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data."""


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model (which has no functions) in which the large weights are inputs, after its own ones."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    graph.name = model.graph.name
    for name in ("node", "input", "output", "value_info"):
        getattr(graph, name).extend(getattr(model.graph, name))
    for tensor in model.graph.initializer:
        if _is_large(tensor):
            value = graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = tensor.data_type
            value.type.tensor_type.shape.SetInParent()
            for size in tensor.dims:
                value.type.tensor_type.shape.dim.add(dim_value=size)
        else:
            graph.initializer.append(tensor)
    return light


def write_model(model: onnx.ModelProto, light: onnx.ModelProto, target: Path) -> None:
    """Write `light`, made from `model` by `without_weights`, with its large weights back in place.

    The wire format of protobuf allows it: a repeated field may be spread over its message, so the large initializers
    simply follow the rest of the graph. Raises InvalidModel when the whole exceeds what a protobuf message can be.
    """
    light = onnx.ModelProto.FromString(light.SerializeToString())
    del light.graph.input[len(model.graph.input) :]
    graph = light.graph.SerializeToString()
    light.ClearField("graph")
    large = [tensor for tensor in model.graph.initializer if _is_large(tensor)]
    heads = [_head(tensor) for tensor in large]
    length = len(graph) + sum(len(head) + _size(tensor) for head, tensor in zip(heads, large, strict=True))
    if length > MOST_BYTES - (1 << 16):
        raise InvalidModel("the model has more than 2 GiB with its weights; such models are not supported yet")
    with target.open("wb") as file:
        file.write(light.SerializeToString() + _tag(_GRAPH_IN_MODEL) + _varint(length) + graph)
        for head, tensor in zip(heads, large, strict=True):
            file.write(head)
            file.write(tensor.raw_data)


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.HasField("raw_data") and _size(tensor) > LARGE_BYTES


def _size(tensor: onnx.TensorProto) -> int:
    """Of the payload in bytes; that it is what the shape says has been checked."""
    return math.ceil(math.prod(tensor.dims) * BITS[tensor.data_type] / 8) if tensor.data_type in BITS else 0


def _head(tensor: onnx.TensorProto) -> bytes:
    """Everything of an initializer up to its raw bytes."""
    named: bytes = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims).SerializeToString()
    raw = _tag(_RAW_DATA_IN_TENSOR) + _varint(_size(tensor))
    return _tag(_INITIALIZER_IN_GRAPH) + _varint(len(named) + len(raw) + _size(tensor)) + named + raw


def _tag(field: int) -> bytes:
    return bytes([field << 3 | 2])  # 2: length-delimited


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])

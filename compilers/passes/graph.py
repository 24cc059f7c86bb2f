"""Facts read from a graph: what its nodes are, what it weighs, whether two graphs are one."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterator

import onnx
import onnx_ir as ir

from compilers.passes import kinds

_WEIGHT_TYPES = frozenset(
    {
        onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4,
        onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2,
    }
)  # fmt: skip

_SCALES_OF = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "MatMulInteger": (2, 3), "ConvInteger": (2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7), "QLinearMatMul": (1, 2, 4, 5, 6, 7), "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeMatMul": (2, 3),
}  # fmt: skip
"""Operator -> indices of the inputs that are scales or zero points."""


def need(condition: object, otherwise: str) -> None:
    """State what a pass needs. Raises PreconditionError with the reason."""
    if not condition:
        raise ir.passes.PreconditionError(otherwise)


def need_products(model: ir.Model, among: Collection[str]) -> None:
    """State a quantizer's need: operators of these kinds in float32, or a model quantized already (and left alone)."""
    if is_quantized(model):
        return
    products = [node for node in model.graph.all_nodes() if node.op_type in among]
    need(products, f"nothing to quantize: the model has none of {', '.join(among)}")
    types = {tensor.dtype for node in products for value in node.inputs[1:2] if (tensor := constant(value)) is not None}
    others = sorted(dtype.name for dtype in types - {ir.DataType.FLOAT})
    need(not others, f"int8 starts from float32 weights, the model's are {', '.join(others)}")


def need_names(model: ir.Model, names: Collection[str]) -> None:
    """State that `names` are nodes of the model; the reason holds the nearest one there is."""
    there = {str(node.name) for node in model.graph.all_nodes()}
    for name in names:
        close = difflib.get_close_matches(name, there, n=1)
        need(name in there, f"no node {name!r} to leave out" + (f"; did you mean {close[0]!r}?" if close else ""))


def promise_quantized(model: ir.Model) -> None:
    """State a quantizer's promise. Raises PostconditionError when it left everything in float."""
    if not is_quantized(model):
        raise ir.passes.PostconditionError("nothing was quantized: no operator has a constant weight and a known type")


def operators(model: ir.Model) -> frozenset[str]:
    """Operator types anywhere in the model, subgraphs included."""
    return frozenset(node.op_type for node in model.graph.all_nodes())


def is_quantized(model: ir.Model) -> bool:
    return kinds.quantized(operators(model))


def attends(model: ir.Model) -> bool:
    return kinds.attend(operators(model))


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value that no request can change, or None."""
    if value is None or value.is_graph_input():
        return None
    return ir.convenience.get_const_tensor(value)


def parameters(model: onnx.ModelProto) -> int:
    """Number of weights: elements of float and quantized constants; a quantizer's scales and zero points are none."""
    constants = dict(_constants(model.graph))
    scales = {
        node.input[index]
        for node in model.graph.node
        for index in _SCALES_OF.get(node.op_type, ())
        if index < len(node.input)
    }
    # ONNX Runtime's dynamic quantizer multiplies a weight's scale in with a plain Mul, so only its name tells.
    scales |= {f"{name.removesuffix('_quantized')}_scale" for name in constants if name.endswith("_quantized")}
    return sum(
        math.prod(tensor.dims)
        for name, tensor in constants.items()
        if tensor.data_type in _WEIGHT_TYPES and name not in scales
    )


def same_graph(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """True when nodes, weights and opsets are the same; inferred shapes and descriptions do not count."""
    return _essence(one) == _essence(other)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _constants(subgraph)


def _essence(model: onnx.ModelProto) -> tuple[object, ...]:
    nodes = []
    for node in model.graph.node:
        bare = onnx.NodeProto()
        bare.CopyFrom(node)
        bare.ClearField("doc_string")
        del bare.metadata_props[:]
        attributes = sorted(bare.attribute, key=lambda attribute: attribute.name)
        del bare.attribute[:]
        bare.attribute.extend(attributes)
        nodes.append(bare.SerializeToString(deterministic=True))
    weights = sorted((tensor.name, tuple(tensor.dims), tensor.data_type) for tensor in model.graph.initializer)
    opsets = sorted((opset.domain, opset.version) for opset in model.opset_import)
    return nodes, weights, opsets

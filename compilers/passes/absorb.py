"""Scale the channels of a tensor by changing constants before it, at no cost when the model runs.

A factor walks up from the tensor to what makes it, through operators that let a positive factor pass, until one with
constants takes it in. It must be the only thing that reads what lies on the way.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from compilers.passes.constants import own_constant
from compilers.passes.graph import constant

_PASSING = frozenset({"Relu", "LeakyRelu"})
_PASSING_CHANNELS = _PASSING | {"MaxPool", "AveragePool", "GlobalAveragePool"}

Edit = Callable[[], None]


def absorb(graph: ir.Graph, value: ir.Value, factor: np.ndarray, axis: int) -> bool:
    """Multiply `value` by the positive `factor` [C] along `axis` (1 or -1); where it cannot: False, nothing touched.

    Every tensor whose values change gets a new name.
    """
    edits = _edits(graph, value, factor, axis)
    if edits is None:
        return False
    for edit in edits:
        edit()
    return True


def _edits(graph: ir.Graph, value: ir.Value, factor: np.ndarray, axis: int) -> list[Edit] | None:
    node = value.producer()
    if node is None or node.domain != "" or node.graph is not graph or value.is_graph_output():
        return None
    found = None
    if node.op_type in (_PASSING if axis == -1 else _PASSING_CHANNELS):
        found = _further(graph, node.inputs[0], factor, axis)
    elif _normalises(node, axis):
        found = _scaled(graph, node, [1, 2], factor)
    elif node.op_type in ("Conv", "MatMul", "Gemm") and (node.op_type == "Conv") == (axis == 1):
        found = _product(graph, node, factor)
    elif node.op_type in ("Mul", "Add") and axis == -1:
        found = _elementwise(graph, node, factor)
    return None if found is None else [*found, lambda: _rename(value)]


def _normalises(node: ir.Node, axis: int) -> bool:
    """Its second and third input are scale and shift of the channels along `axis`."""
    if node.op_type == "LayerNormalization":
        return axis == -1 and node.attributes.get_int("axis", -1) == -1
    return node.op_type == "BatchNormalization" and axis == 1 and not node.attributes.get_int("training_mode", 0)


def _further(graph: ir.Graph, value: ir.Value | None, factor: np.ndarray, axis: int) -> list[Edit] | None:
    return None if value is None or len(list(value.uses())) != 1 else _edits(graph, value, factor, axis)


def _elementwise(graph: ir.Graph, node: ir.Node, factor: np.ndarray) -> list[Edit] | None:
    """A constant factor takes it in; a sum with a constant passes it on to its other side as well."""
    for place in (0, 1):
        if constant(node.inputs[place]) is None:
            continue
        mine = _scaled(graph, node, [place], factor)
        if mine is None or node.op_type == "Mul":
            return mine
        rest = _further(graph, node.inputs[1 - place], factor, -1)
        return None if rest is None else [*mine, *rest]
    return None


def _product(graph: ir.Graph, node: ir.Node, factor: np.ndarray) -> list[Edit] | None:
    weight = constant(node.inputs[1])
    if weight is None or weight.dtype != ir.DataType.FLOAT:
        return None
    array = weight.numpy()
    across = 0 if node.op_type == "Conv" or bool(node.attributes.get_int("transB", 0)) else 1
    if (node.op_type == "MatMul" and array.ndim != 2) or array.shape[across] != len(factor):
        return None
    spread = factor.reshape([-1 if each == across else 1 for each in range(array.ndim)])
    scaled = (array * spread).astype(np.float32)
    edits = [lambda: own_constant(graph, node, 1, scaled, f"{node.outputs[0].name}.absorbed.weight")]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = _scaled(graph, node, [2], factor)
        return None if bias is None else [*edits, *bias]
    return edits


def _scaled(graph: ir.Graph, node: ir.Node, places: list[int], factor: np.ndarray) -> list[Edit] | None:
    """Inputs of `node` that are constant vectors [C] (or one number for all), times the factor."""
    edits: list[Edit] = []
    for place in places:
        if place >= len(node.inputs) or node.inputs[place] is None:
            continue
        tensor = constant(node.inputs[place])
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            return None
        array = tensor.numpy()
        if array.size not in (1, len(factor)) or array.shape[-1:] not in ((), (1,), (len(factor),)):
            return None
        edits.append(_setting(graph, node, place, (array.reshape(-1) * factor).astype(np.float32)))
    return edits


def _setting(graph: ir.Graph, node: ir.Node, place: int, array: np.ndarray) -> Edit:
    return lambda: own_constant(graph, node, place, array, f"{node.outputs[0].name}.absorbed")


def _rename(value: ir.Value) -> None:
    """A name names a value (compilers.calibration): what holds another must be called otherwise."""
    value.name = f"{value.name}.smooth"

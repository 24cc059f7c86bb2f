"""Constants given to one node alone: what a pass writes must not reach other nodes that shared the old one."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir


def own_constant(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray, name: str) -> None:
    """Give the node an initializer of its own as input `index`: the old one may serve other nodes."""
    name = unused_name(graph, name)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    graph.register_initializer(value)
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def unused_name(graph: ir.Graph, name: str) -> str:
    """`name`, or with a number where an initializer is called so already."""
    number = itertools.count(2)
    candidate = name
    while candidate in graph.initializers:
        candidate = f"{name}.{next(number)}"
    return candidate

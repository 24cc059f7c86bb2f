"""A Gemm as a MatMul and an Add: the form in which quantizers that know only MatMul take it.

Ours, because ONNX Runtime's own turns a weight in place that other nodes may share, and renames the node.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from compilers.passes.constants import own_constant
from compilers.passes.graph import constant


def gemm_to_matmul(model: ir.Model, exclude: Collection[str]) -> None:
    """Replace every plain Gemm (no scaling, input not transposed, constant weight) that is not in `exclude`, in place.

    The MatMul keeps the node's name.
    """
    for node in [node for node in model.graph if node.op_type == "Gemm" and node.domain == ""]:
        get = node.attributes
        plain = get.get_float("alpha", 1.0) == get.get_float("beta", 1.0) == 1.0 and not get.get_int("transA", 0)
        weight = constant(node.inputs[1])
        if node.name in exclude or not plain or weight is None:
            continue
        if get.get_int("transB", 0):
            own_constant(model.graph, node, 1, weight.numpy().T.copy(), f"{node.outputs[0].name}.weight")
        _replace(model.graph, node)


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    answer = node.outputs[0]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    made = [ir.Node("", "MatMul", node.inputs[:2], name=node.name)]
    if bias is not None:
        product = made[0].outputs[0]
        product.name, product.type, product.shape = f"{answer.name}.product", answer.type, answer.shape
        made.append(ir.Node("", "Add", [made[0].outputs[0], bias], name=f"{node.name}.bias"))
    graph.insert_before(node, made)
    name, kind, shape, now = answer.name, answer.type, answer.shape, made[-1].outputs[0]
    ir.convenience.replace_all_uses_with(answer, now, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    now.name, now.type, now.shape = name, kind, shape

"""Mixed precision in the graph: float16 or bfloat16 where numbers allow, float32 where they do not.

Precision written into the graph needs no flags of any runtime. A node stays in float32 when it is of a kind that
loses (sums of squares, exponentials, logarithms, running sums), when one of its weights or of the values observed on
the samples is beyond what float16 holds with some room, when it sums over very many products, or when it was named.
Casts stand at the borders of what was cast, one for each value and direction; inputs and outputs keep their types.
(The rules are those of AutoCast in NVIDIA's ModelOpt, which hands its graphs to strongly typed TensorRT.)

bfloat16 has float32's range, so nothing needs to be observed for it; it is in ONNX's operators since opset 22.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from compilers.calibration import Calibration
from compilers.calibration.calibrate import calibrated
from compilers.calibration.statistics import Statistics
from compilers.passes.constants import unused_name
from compilers.passes.graph import constant, is_quantized, need, need_names
from compilers.passes.kinds import KEPT
from compilers.passes.shapes import with_shapes

TYPES = {"fp16": (ir.DataType.FLOAT16, 13), "bf16": (ir.DataType.BFLOAT16, 22)}
"""Precision -> its datatype, and the opset from which ONNX's operators take it."""

LARGEST_FP16 = 65504.0
DATA_MOST = 512.0
"""Values seen up to here leave float16 room for those that were not seen, and for sums of them (AutoCast's default)."""

DEPTH_MOST = 1 << 15
"""Products summed in one output: more of them could overflow where a runtime adds up in float16."""


class CastPrecision(ir.passes.FunctionalPass):
    """`precision`: fp16 or bf16. `keep`: names of nodes that stay in float32. `data_most`: see DATA_MOST."""

    def __init__(
        self,
        calibration: Calibration | None = None,
        statistics: Statistics | None = None,
        precision: Literal["fp16", "bf16"] = "fp16",
        keep: Sequence[str] = (),
        data_most: float = DATA_MOST,
    ) -> None:
        self.calibration = calibration
        self.statistics = statistics
        self.precision = precision
        self.keep = frozenset(keep)
        self.data_most = data_most

    def requires(self, model: ir.Model) -> None:
        need(self.precision in TYPES, f"precision is fp16 or bf16, not {self.precision!r}")
        need(self.precision == "bf16" or self.calibration, "fp16 needs calibration samples: not every value fits it")
        need_names(model, self.keep)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        to, least = TYPES[self.precision]
        if is_quantized(model) or _is_cast(model, to):
            return ir.passes.PassResult(model.clone(), modified=False)
        proto = ir.to_proto(model)
        if model.opset_imports.get("", least) < least:
            proto = onnx.version_converter.convert_version(proto, least)
        work = ir.from_proto(with_shapes(proto))
        common.LiftConstantsToInitializersPass(lift_all_constants=True)(work)
        chosen = [node for node in work.graph if self._may(node)]
        if self.precision == "fp16" and chosen and self.calibration is not None:
            tensors = {str(value.name) for node in chosen for value in _floats(node) if constant(value) is None}
            with calibrated(work, self.calibration, self.statistics, tensors=tensors) as seen:
                chosen = [node for node in chosen if self._fits(node, seen)]
        if not chosen:
            return ir.passes.PassResult(model.clone(), modified=False)
        _cast(work.graph, chosen, to)
        common.RemoveUnusedNodesPass()(work)
        return ir.passes.PassResult(work, modified=True)

    def _may(self, node: ir.Node) -> bool:
        """Whether its kind and types allow it, whatever the numbers."""
        if node.domain not in ("", "ai.onnx") or node.op_type in KEPT or node.name in self.keep:
            return False
        subgraphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        inside = any(attribute.type in subgraphs for attribute in node.attributes.values())
        typed = all(value is None or value.dtype is not None for value in (*node.inputs, *node.outputs))
        reads = any(value is not None and value.dtype is ir.DataType.FLOAT for value in node.inputs)
        writes = any(value.dtype is ir.DataType.FLOAT for value in node.outputs)
        return typed and reads and writes and not inside

    def _fits(self, node: ir.Node, seen: Statistics) -> bool:
        """Whether float16 holds its weights and what it was seen to read and write."""
        for value in _floats(node):
            tensor = constant(value)
            if tensor is not None:
                array = tensor.numpy()
                if array.size and not float(np.abs(array).max()) <= LARGEST_FP16:
                    return False
            else:
                statistics = seen.tensors.get(str(value.name))
                if statistics is None or not max(abs(statistics.low), abs(statistics.high)) <= self.data_most:
                    return False
        return _depth(node) <= DEPTH_MOST


def _floats(node: ir.Node) -> list[ir.Value]:
    return [value for value in (*node.inputs, *node.outputs) if value is not None and value.dtype is ir.DataType.FLOAT]


def _is_cast(model: ir.Model, to: ir.DataType) -> bool:
    return any(value.dtype is to for node in model.graph for value in node.outputs) or any(
        value.dtype is to for value in model.graph.initializers.values()
    )


def _depth(node: ir.Node) -> int:
    """Products summed for one output value; 1 where nothing is."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.shape is None or not weight.shape.is_static():
        return 1
    shape = weight.shape.numpy()
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(shape) < 2:
        return 1
    if node.op_type in ("Conv", "ConvTranspose"):
        return math.prod(shape[1:] if node.op_type == "Conv" else (shape[0], *shape[2:]))
    return int(
        shape[-1]
        if node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].as_int()
        else shape[-2:][0]
    )


def _cast(graph: ir.Graph, chosen: Sequence[ir.Node], to: ir.DataType) -> None:
    inside = set(chosen)
    lowered: dict[ir.Value, ir.Value] = {}
    for node in chosen:
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype is not ir.DataType.FLOAT:
                continue
            if (producer := value.producer()) is not None and producer in inside:
                continue  # its output will be of the low type itself
            if value not in lowered:
                lowered[value] = _lowered(graph, value, to)
            node.replace_input_with(index, lowered[value])
    for node in chosen:
        for value in node.outputs:
            if value.dtype is ir.DataType.FLOAT:
                _raise_for_others(graph, node, value, inside, to)


def _lowered(graph: ir.Graph, value: ir.Value, to: ir.DataType) -> ir.Value:
    """A constant in the low type, or a Cast right behind where the value comes from."""
    name = unused_name(graph, f"{value.name}_{to.name.lower()}")
    tensor = constant(value)
    if tensor is not None:
        low = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
        low.const_value = ir.tensor(np.asarray(tensor.numpy()).astype(to.numpy()), name=name)
        graph.register_initializer(low)
        return low
    made = ir.node("Cast", [value], {"to": to}, name=name)
    made.outputs[0].name, made.outputs[0].dtype, made.outputs[0].shape = name, to, value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], made)
    else:
        graph.insert_after(producer, made)
    return made.outputs[0]


def _raise_for_others(
    graph: ir.Graph, node: ir.Node, value: ir.Value, inside: Collection[ir.Node], to: ir.DataType
) -> None:
    """Give an output the low type; whoever was not cast, and the caller of the model, gets it in float32."""
    others = [(user, index) for user, index in value.uses() if user not in inside]
    if not others and not value.is_graph_output():
        value.dtype = to
        return
    name = str(value.name)
    value.name, value.dtype = unused_name(graph, f"{name}_{to.name.lower()}"), to
    made = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=f"{name}_float")
    raised = made.outputs[0]
    raised.name, raised.dtype, raised.shape = name, ir.DataType.FLOAT, value.shape
    graph.insert_after(node, made)
    for user, place in others:
        user.replace_input_with(place, raised)
    for place, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[place] = raised

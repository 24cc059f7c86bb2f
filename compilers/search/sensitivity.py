"""Which nodes lose most by int8: each quantized alone, and how far the model's outputs then are from the float ones.

Two graphs are made of the float model. In the first every node that could be quantized gets a double on fake-quantized
inputs, and only the energies of its output and of the difference leave the graph: one pass gives every node's *local*
error. In the second every such input goes through a switch, and one flag a node says whether it is quantized: one
session, one run a node, gives what the whole model makes of that error. Runs go from the worst local error on, for as
long as `seconds` allow; nodes that were not reached are ranked behind by their local error.

Weights: symmetric int8 per output channel; activations: uint8 per tensor, between the extremes seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compilers.targets import Session

Tensors = dict[str, np.ndarray]
Open = Callable[[Path], Session]

PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
ELEMENTWISE = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Resize", "Softmax", "Sigmoid", "LeakyRelu")
"""What static int8 also quantizes in a model that is no transformer, to keep regions in int8."""

FLAGS = "forgeway_quantized"
CAP_DB = 200.0


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """`decibels`: node -> SQNR of the outputs (the worst of them) when it alone is quantized; local ones where not
    `checked`. `order`: the most sensitive first."""

    decibels: dict[str, float] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    checked: int = 0


def measure_sensitivity(
    model: onnx.ModelProto, runs: Sequence[Tensors], open_model: Open, kinds: Sequence[str], seconds: float
) -> Sensitivity:
    """Rank the nodes of `kinds` that have a name and a float input. `runs`: inputs of a few runs, by name."""
    deadline = time.monotonic() + seconds
    candidates = _candidates(model, kinds)
    if not candidates:
        return Sensitivity()
    extremes = _observe(model, candidates, runs, open_model)
    local = _local(model, candidates, extremes, runs, open_model)
    order = sorted(local, key=lambda name: local[name])
    whole = _whole(model, candidates, extremes, runs, open_model, order, deadline)
    ranked = sorted(whole, key=lambda name: whole[name]) + [name for name in order if name not in whole]
    return Sensitivity({name: round(whole.get(name, local[name]), 2) for name in ranked}, tuple(ranked), len(whole))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A node and which of its inputs would be quantized: constants (weights) and activations."""

    node: onnx.NodeProto
    weights: Mapping[int, np.ndarray]
    activations: tuple[int, ...]


def _candidates(model: onnx.ModelProto, kinds: Sequence[str]) -> list[_Candidate]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = _float_tensors(model)
    found = []
    for node in model.graph.node:
        if node.op_type not in kinds or not node.name or node.domain not in ("", "ai.onnx"):
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
            found.append(_Candidate(node, weights, activations))
    return found


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of float32 activations, as far as inference knows; what is unknown is left out."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    typed = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def _observe(
    model: onnx.ModelProto, candidates: Iterable[_Candidate], runs: Sequence[Tensors], open_model: Open
) -> dict[str, tuple[float, float]]:
    """Activation -> (least, greatest) value over the runs."""
    names = list(dict.fromkeys(c.node.input[place] for c in candidates for place in c.activations))
    probe = _bare(model)
    for index, name in enumerate(names):
        for end in ("Min", "Max"):
            output = f"forgeway_{end}_{index}"
            probe.graph.node.append(helper.make_node(f"Reduce{end}", [name], [output], keepdims=0))
            probe.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    seen: dict[str, tuple[float, float]] = {}
    for outputs in _run(probe, runs, open_model):
        for index, name in enumerate(names):
            low, high = (float(outputs[f"forgeway_{end}_{index}"]) for end in ("Min", "Max"))
            before = seen.get(name, (0.0, 0.0))
            seen[name] = (min(before[0], low), max(before[1], high))
    return seen


def _local(
    model: onnx.ModelProto,
    candidates: Sequence[_Candidate],
    extremes: Mapping[str, tuple[float, float]],
    runs: Sequence[Tensors],
    open_model: Open,
) -> dict[str, float]:
    """Node -> SQNR in dB of its own output."""
    doubled, pairs = _bare(model), {}
    del doubled.graph.output[:]
    for index, candidate in enumerate(candidates):
        inputs = list(candidate.node.input)
        for place in range(len(inputs)):
            inputs[place] = _fake(doubled.graph, candidate, place, extremes, f"local{index}") or inputs[place]
        twin = onnx.NodeProto()
        twin.CopyFrom(candidate.node)
        twin.name, here = f"forgeway_twin_{index}", candidate.node.output[0]
        del twin.input[:], twin.output[:]
        twin.input.extend(inputs)
        twin.output.append(f"forgeway_twin_{index}")
        difference, signal, noise = (f"forgeway_{part}_{index}" for part in ("difference", "signal", "noise"))
        doubled.graph.node.extend([twin, helper.make_node("Sub", [here, twin.output[0]], [difference])])
        for tensor, energy in ((here, signal), (difference, noise)):
            doubled.graph.node.append(helper.make_node("ReduceSumSquare", [tensor], [energy], keepdims=0))
            doubled.graph.output.append(helper.make_tensor_value_info(energy, TensorProto.FLOAT, []))
        pairs[candidate.node.name] = (signal, noise)
    sums = {name: np.zeros(2) for name in pairs}
    for outputs in _run(doubled, runs, open_model):
        for name, energies in pairs.items():
            sums[name] += [float(outputs[energy]) for energy in energies]
    return {name: _decibels(*energies) for name, energies in sums.items()}


def _whole(
    model: onnx.ModelProto,
    candidates: Sequence[_Candidate],
    extremes: Mapping[str, tuple[float, float]],
    runs: Sequence[Tensors],
    open_model: Open,
    order: Sequence[str],
    deadline: float,
) -> dict[str, float]:
    """Node -> SQNR in dB of the model's worst output, for the nodes of `order` that the time allowed."""
    switched = _bare(model)
    switched.graph.input.append(helper.make_tensor_value_info(FLAGS, TensorProto.BOOL, [len(candidates)]))
    nodes = {node.name: node for node in switched.graph.node if node.name}
    added = onnx.GraphProto()
    for index, candidate in enumerate(candidates):
        flag = f"forgeway_flag_{index}"
        added.initializer.append(numpy_helper.from_array(np.array(index, np.int64), f"{flag}_index"))
        added.node.append(helper.make_node("Gather", [FLAGS, f"{flag}_index"], [flag]))
        for place, name in enumerate(candidate.node.input):
            if quantized := _fake(added, candidate, place, extremes, f"whole{index}"):
                chosen = f"{quantized}_chosen"
                added.node.append(helper.make_node("Where", [flag, quantized, name], [chosen]))
                nodes[candidate.node.name].input[place] = chosen
    switched.graph.initializer.extend(added.initializer)
    switched.graph.node.extend(added.node)
    session = _opened(switched, open_model)
    try:
        flags = np.zeros(len(candidates), bool)
        expected = [session.run({**inputs, FLAGS: flags}) for inputs in runs]
        positions = {candidate.node.name: index for index, candidate in enumerate(candidates)}
        found: dict[str, float] = {}
        for name in order:
            if time.monotonic() > deadline:
                break
            flags = np.zeros(len(candidates), bool)
            flags[positions[name]] = True
            found[name] = _outputs_db(expected, [session.run({**inputs, FLAGS: flags}) for inputs in runs])
        return found
    finally:
        session.close()


def _fake(
    graph: onnx.GraphProto,
    candidate: _Candidate,
    place: int,
    extremes: Mapping[str, tuple[float, float]],
    prefix: str,
) -> str | None:
    """Add the fake-quantized twin of an input to `graph`; its name, or None where the input stays as it is."""
    name = f"forgeway_{prefix}_{place}"
    if place in candidate.weights:
        weight = _rounded(candidate.weights[place], candidate.node)
        graph.initializer.append(numpy_helper.from_array(weight, name))
        return name
    if place not in candidate.activations:
        return None
    low, high = extremes[candidate.node.input[place]]
    scale = (high - low) / 255 or 1.0
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), f"{name}_zero"))
    ends = [f"{name}_scale", f"{name}_zero"]
    graph.node.append(helper.make_node("QuantizeLinear", [candidate.node.input[place], *ends], [f"{name}_u8"]))
    graph.node.append(helper.make_node("DequantizeLinear", [f"{name}_u8", *ends], [name]))
    return name


def _rounded(weight: np.ndarray, node: onnx.NodeProto) -> np.ndarray:
    """The weight on the grid of symmetric int8, a scale an output channel."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    axis = 1 if node.op_type == "ConvTranspose" else 0 if node.op_type == "Conv" or transposed else weight.ndim - 1
    others = tuple(other for other in range(weight.ndim) if other != axis)
    scale = np.abs(weight).max(axis=others, keepdims=True, initial=0.0) / 127
    scale = np.where(scale == 0, 1, scale)
    return np.asarray(np.clip(np.rint(weight / scale), -127, 127) * scale, np.float32)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _run(model: onnx.ModelProto, runs: Sequence[Tensors], open_model: Open) -> Iterable[Tensors]:
    session = _opened(model, open_model)
    try:
        for inputs in runs:
            yield session.run(inputs)
    finally:
        session.close()


def _opened(model: onnx.ModelProto, open_model: Open) -> Session:
    _sort(model.graph)
    path = Path(f"{len(model.graph.node)}-{len(model.graph.output)}.onnx")
    onnx.save(model, path)
    try:
        return open_model(path)
    finally:
        path.unlink()


def _sort(graph: onnx.GraphProto) -> None:
    """Topological order: what was added at the end may be needed at the start."""
    ready = {tensor.name for tensor in (*graph.initializer, *graph.input)} | {""}
    made = {output for node in graph.node for output in node.output}
    waiting, ordered = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            needs = {*node.input, *_captured(node)} & made
            if needs <= ready:
                ordered.append(node)
                ready |= set(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ValueError("the graph has a cycle")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)


def _captured(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of a node take from outside."""
    return {
        name
        for attribute in node.attribute
        for graph in (attribute.g, *attribute.graphs)
        for inner in graph.node
        for name in (*inner.input, *_captured(inner))
    }


def _outputs_db(expected: Sequence[Tensors], got: Sequence[Tensors]) -> float:
    """Of the worst output, the mean over its rows: a row with large values must not outweigh the others."""
    worst = CAP_DB
    for name in expected[0]:
        rows = [
            _decibels(*_energies(one, other))
            for reference, variant in zip(expected, got, strict=True)
            for one, other in zip(_rows(reference[name]), _rows(variant[name]), strict=True)
        ]
        worst = min(worst, float(np.mean(rows)) if rows else CAP_DB)
    return worst


def _rows(array: np.ndarray) -> Iterable[np.ndarray]:
    return array if array.ndim > 1 else [array]


def _energies(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Of the signal and of what differs; of discrete values the number of entries."""
    if one.dtype.kind != "f":
        return float(one.size), float((one != other).sum())
    signal = one.astype(np.float64)
    return float(np.square(signal).sum()), float(np.square(signal - other.astype(np.float64)).sum())


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0 or not np.isfinite(noise):
        return CAP_DB if noise <= 0 else -CAP_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -CAP_DB, CAP_DB))

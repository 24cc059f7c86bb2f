"""Which nodes lose most by a lower precision: each rounded alone, and how far the outputs then are from the float ones.

Two graphs are made of the float model. In the first every node that could be lowered gets a double on rounded inputs
(compilers.search.simulation), and only the energies of its output and of the difference leave the graph: one pass gives
every node's *local* error. In the second every such input goes through a switch, and one flag a node says whether it is
rounded: one session, one run a node, gives what the whole model makes of that error. Runs go from the worst local error
on, for as long as `seconds` allow; nodes that were not reached are ranked behind by their local error.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compilers.search.altered import Open, Tensors, copy_of, opened, runs_of
from compilers.search.simulation import Candidate, Extremes, Precision, candidates, rounded_input

FLAGS = "forgeway_lowered"
CAP_DB = 200.0


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """`decibels`: node -> SQNR of the outputs (the worst of them) when it alone is rounded; local ones where not
    `checked`. `order`: the most sensitive first."""

    decibels: dict[str, float] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    checked: int = 0


def measure_sensitivity(
    model: onnx.ModelProto,
    runs: Sequence[Tensors],
    open_model: Open,
    kinds: Sequence[str],
    seconds: float,
    precision: Precision = "int8",
) -> Sensitivity:
    """Rank the nodes of `kinds` that have a name and a float input. `runs`: inputs of a few runs, by name."""
    measured = _Measured(model, runs, open_model, candidates(model, kinds), precision, time.monotonic() + seconds)
    if not measured.nodes:
        return Sensitivity()
    extremes = measured.observe() if precision == "int8" else {}
    local = measured.local(extremes)
    order = sorted(local, key=lambda name: local[name])
    whole = measured.whole(extremes, order)
    ranked = sorted(whole, key=lambda name: whole[name]) + [name for name in order if name not in whole]
    return Sensitivity({name: round(whole.get(name, local[name]), 2) for name in ranked}, tuple(ranked), len(whole))


@dataclass(frozen=True, slots=True)
class _Measured:
    model: onnx.ModelProto
    runs: Sequence[Tensors]
    open_model: Open
    nodes: Sequence[Candidate]
    precision: Precision
    deadline: float

    def observe(self) -> dict[str, tuple[float, float]]:
        """Activation -> (least, greatest) value over the runs."""
        names = list(dict.fromkeys(each.node.input[place] for each in self.nodes for place in each.activations))
        probe = copy_of(self.model)
        for index, name in enumerate(names):
            for end in ("Min", "Max"):
                output = f"forgeway_{end}_{index}"
                probe.graph.node.append(helper.make_node(f"Reduce{end}", [name], [output], keepdims=0))
                probe.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
        seen: dict[str, tuple[float, float]] = {}
        for outputs in runs_of(probe, self.runs, self.open_model):
            for index, name in enumerate(names):
                low, high = (float(outputs[f"forgeway_{end}_{index}"]) for end in ("Min", "Max"))
                before = seen.get(name, (0.0, 0.0))
                seen[name] = (min(before[0], low), max(before[1], high))
        return seen

    def local(self, extremes: Extremes) -> dict[str, float]:
        """Node -> SQNR in dB of its own output."""
        doubled, pairs = copy_of(self.model), {}
        del doubled.graph.output[:]
        for index, candidate in enumerate(self.nodes):
            twin = onnx.NodeProto()
            twin.CopyFrom(candidate.node)
            twin.name, here = f"forgeway_twin_{index}", candidate.node.output[0]
            del twin.output[:]
            twin.output.append(f"forgeway_twin_{index}")
            for place in range(len(twin.input)):
                twin.input[place] = (
                    rounded_input(doubled.graph, candidate, place, extremes, self.precision, f"local{index}")
                    or twin.input[place]
                )
            difference, signal, noise = (f"forgeway_{part}_{index}" for part in ("difference", "signal", "noise"))
            doubled.graph.node.extend([twin, helper.make_node("Sub", [here, twin.output[0]], [difference])])
            for tensor, energy in ((here, signal), (difference, noise)):
                doubled.graph.node.append(helper.make_node("ReduceSumSquare", [tensor], [energy], keepdims=0))
                doubled.graph.output.append(helper.make_tensor_value_info(energy, TensorProto.FLOAT, []))
            pairs[candidate.node.name] = (signal, noise)
        sums = {name: np.zeros(2) for name in pairs}
        for outputs in runs_of(doubled, self.runs, self.open_model):
            for name, energies in pairs.items():
                sums[name] += [float(outputs[energy]) for energy in energies]
        return {name: _decibels(*energies) for name, energies in sums.items()}

    def whole(self, extremes: Extremes, order: Sequence[str]) -> dict[str, float]:
        """Node -> SQNR in dB of the model's worst output, for the nodes of `order` that the time allowed."""
        session = opened(self._switched(extremes), self.open_model)
        try:
            flags = np.zeros(len(self.nodes), bool)
            expected = [session.run({**inputs, FLAGS: flags}) for inputs in self.runs]
            positions = {candidate.node.name: index for index, candidate in enumerate(self.nodes)}
            found: dict[str, float] = {}
            for name in order:
                if time.monotonic() > self.deadline:
                    break
                flags = np.zeros(len(self.nodes), bool)
                flags[positions[name]] = True
                found[name] = _outputs_db(expected, [session.run({**inputs, FLAGS: flags}) for inputs in self.runs])
            return found
        finally:
            session.close()

    def _switched(self, extremes: Extremes) -> onnx.ModelProto:
        """The model with a flag for every candidate: whether it reads its inputs rounded."""
        switched = copy_of(self.model)
        switched.graph.input.append(helper.make_tensor_value_info(FLAGS, TensorProto.BOOL, [len(self.nodes)]))
        nodes = {node.name: node for node in switched.graph.node if node.name}
        added = onnx.GraphProto()
        for index, candidate in enumerate(self.nodes):
            flag = f"forgeway_flag_{index}"
            added.initializer.append(numpy_helper.from_array(np.array(index, np.int64), f"{flag}_index"))
            added.node.append(helper.make_node("Gather", [FLAGS, f"{flag}_index"], [flag]))
            for place, name in enumerate(candidate.node.input):
                if low := rounded_input(added, candidate, place, extremes, self.precision, f"whole{index}"):
                    added.node.append(helper.make_node("Where", [flag, low, name], [f"{low}_chosen"]))
                    nodes[candidate.node.name].input[place] = f"{low}_chosen"
        switched.graph.initializer.extend(added.initializer)
        switched.graph.node.extend(added.node)
        return switched


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

"""Intermediate tensors of a model, run by run, without ever holding more of them than a budget allows.

ONNX Runtime runs the model with its tensors as outputs, a chunk of tensors at a time and only the nodes that lead to
them. How large each tensor is, is asked first by running the model once with their shapes as outputs. The weights lie
in one file beside the parts, so that each part's session holds them once and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Tensors = dict[str, np.ndarray]

BUDGET_BYTES = 64 << 20
"""Tensors that one run may answer with, together."""


class Observed:
    """A model whose tensors can be looked at; `folder` keeps its weights meanwhile, taken out of `model`."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self._folder = folder
        del model.graph.value_info[:]
        path = folder / "observed.onnx"
        onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
        self._model = onnx.load(path, load_external_data=False)

    def sizes(self, tensors: Sequence[str], inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Bytes of each float32 tensor in a run on `inputs`."""
        asked = [name for name in tensors if name not in inputs]
        found = {name: inputs[name].nbytes for name in tensors if name in inputs}
        if asked:
            shapes = [onnx.helper.make_node("Shape", [name], [f"{name}/shape?"]) for name in asked]
            session = self._session([(f"{name}/shape?", onnx.TensorProto.INT64) for name in asked], shapes)
            answers = session.run(None, _fitting(session, inputs))
            found |= {name: 4 * int(np.prod(shape)) for name, shape in zip(asked, answers, strict=True)}
        return {name: found[name] for name in tensors}

    def runs(self, tensors: Sequence[str], feeds: Iterator[Tensors]) -> Iterator[Tensors]:
        """The values of `tensors` in one run after another; those that are inputs are passed through."""
        session, outputs = None, [name for name in tensors if name not in self._inputs]
        if outputs:
            session = self._session([(name, onnx.TensorProto.FLOAT) for name in outputs])
        for inputs in feeds:
            passed = {name: inputs[name] for name in tensors if name in inputs}
            if session is not None:
                passed |= dict(zip(outputs, session.run(outputs, _fitting(session, inputs)), strict=True))
            yield passed

    @property
    def _inputs(self) -> frozenset[str]:
        return frozenset(value.name for value in self._model.graph.input)

    def _session(self, outputs: Sequence[tuple[str, int]], extra: Sequence[onnx.NodeProto] = ()) -> Any:
        import onnxruntime

        path = self._folder / "part.onnx"
        onnx.save_model(_only(self._model, outputs, extra), path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False  # what a run held goes back at once
        # Shapes are taken as soon as they are known: in the usual order every tensor would wait for the last one.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])


def chunks(weights: Mapping[str, int], budget: int = BUDGET_BYTES) -> Iterator[list[str]]:
    """Cut tensors, in order, into chunks of at most `budget` bytes; one larger than that stands alone."""
    chunk: list[str] = []
    held = 0
    for name, size in weights.items():
        if chunk and held + size > budget:
            yield chunk
            chunk, held = [], 0
        chunk.append(name)
        held += size
    if chunk:
        yield chunk


def _fitting(session: Any, inputs: Mapping[str, np.ndarray]) -> Tensors:
    return {value.name: inputs[value.name] for value in session.get_inputs()}


def _only(
    model: onnx.ModelProto, outputs: Sequence[tuple[str, int]], extra: Sequence[onnx.NodeProto] = ()
) -> onnx.ModelProto:
    """The part of the model that leads to `outputs` (name, element type), which become its outputs."""
    needed = {name for name, _ in outputs}
    kept: list[onnx.NodeProto] = []
    for node in reversed([*model.graph.node, *extra]):
        if needed.isdisjoint(node.output):
            continue
        kept.append(node)
        needed |= _reads(node)
    part = onnx.ModelProto()
    part.ir_version = model.ir_version
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = model.graph.name
    part.graph.node.extend(reversed(kept))
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    part.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    part.graph.input.extend(value for value in model.graph.input if value.name in needed)
    part.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in outputs)
    return part


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names a node may read, those its subgraphs take from outside included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names |= {value.name for value in graph.output}
            for inner in graph.node:
                names |= _reads(inner)
    return names

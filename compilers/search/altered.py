"""Runs of a model that was altered to be looked into: nodes and outputs added anywhere, sorted before it opens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx

from compilers.targets import Session

Tensors = dict[str, np.ndarray]
Open = Callable[[Path], Session]


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def runs_of(model: onnx.ModelProto, runs: Sequence[Tensors], open_model: Open) -> Iterable[Tensors]:
    """The outputs of one run after another."""
    session = opened(model, open_model)
    try:
        for inputs in runs:
            yield session.run(inputs)
    finally:
        session.close()


def opened(model: onnx.ModelProto, open_model: Open) -> Session:
    """A session on the model, its nodes sorted in place; the caller closes it. Raises ValueError for a cycle."""
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

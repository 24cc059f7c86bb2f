"""What of a model decides its speed: nodes, attributes, shapes and types of weights; the numbers in them do not."""

from __future__ import annotations

import hashlib
from typing import Any


def structure(model: Any) -> str:
    """sha256 of an `onnx.ModelProto` with the values of its weights left out."""
    digest = hashlib.sha256()
    for opset in model.opset_import:
        digest.update(f"{opset.domain} {opset.version};".encode())
    _add(digest, model.graph)
    return digest.hexdigest()


def _add(digest: Any, graph: Any) -> None:
    for value in (*graph.input, *graph.output):
        digest.update(value.name.encode() + value.type.SerializeToString(deterministic=True))
    for tensor in graph.initializer:
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)};".encode())
    for node in graph.node:
        digest.update(f"{node.domain} {node.op_type} {list(node.input)} {list(node.output)}".encode())
        for attribute in sorted(node.attribute, key=lambda each: each.name):
            tensors = [attribute.t] if attribute.HasField("t") else list(attribute.tensors)
            for tensor in tensors:
                digest.update(f"{attribute.name} {tensor.data_type} {list(tensor.dims)}".encode())
            subgraphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for subgraph in subgraphs:
                _add(digest, subgraph)
            if not tensors and not subgraphs:
                digest.update(attribute.SerializeToString(deterministic=True))

"""Everything a model holds, wherever it hides: graphs in attributes, in functions, in training sections.

Every check of intake is a loop over what this finds, so that no corner (a sparse constant in a subgraph of a
function) is looked at by one check and forgotten by another. The walk itself carries the caps that keep it finite.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model_store.errors import InvalidModel

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

MOST_NODES = 100_000
MOST_TENSORS = 200_000
MOST_ATTRIBUTES = 1_000_000
MOST_NESTING = 16
LONGEST_TEXT = 1 << 20
"""Bytes of one string attribute; vocabularies are lists of shorter ones."""
LONGEST_NAME = 4_096


@dataclass(slots=True)
class Contents:
    """What one walk found. Texts say where a thing is, for messages."""

    graphs: list[GraphProto] = field(default_factory=list)
    nodes: list[NodeProto] = field(default_factory=list)
    attributes: list[AttributeProto] = field(default_factory=list)
    tensors: list[tuple[str, TensorProto]] = field(default_factory=list)
    sparse: list[tuple[str, SparseTensorProto]] = field(default_factory=list)


def survey(model: ModelProto) -> Contents:
    """Walk the whole model. Raises InvalidModel when it is deeper, larger or wordier than any real model."""
    found = Contents()
    waiting: list[tuple[str, Any, int]] = [("the graph", model.graph, 1)]
    waiting += [(f"function {function.name!r}", function, 1) for function in model.functions]
    for training in model.training_info:
        waiting += [("training_info", training.initialization, 1), ("training_info", training.algorithm, 1)]
    while waiting:
        where, graph, depth = waiting.pop()
        if depth > MOST_NESTING:
            raise InvalidModel(f"the model nests graphs more than {MOST_NESTING} deep")
        found.graphs.append(graph)
        _check_counts(found, graph)
        if hasattr(graph, "initializer"):
            for tensor in graph.initializer:
                found.tensors.append((f"initializer {tensor.name[:80]!r}", tensor))
            for sparse in graph.sparse_initializer:
                _add_sparse(found, f"sparse initializer {sparse.values.name[:80]!r}", sparse)
        else:
            for attribute in graph.attribute_proto:  # defaults of a function's attributes
                waiting += _read_attribute(found, where, attribute, depth)
        for node in graph.node:
            found.nodes.append(node)
            for attribute in node.attribute:
                waiting += _read_attribute(found, node, attribute, depth)
            if len(found.attributes) > MOST_ATTRIBUTES:
                raise InvalidModel(f"the model has more than {MOST_ATTRIBUTES:,} attributes")
    if len(found.tensors) > MOST_TENSORS:
        raise InvalidModel(f"the model has more than {MOST_TENSORS:,} tensors")
    return found


def name_of(node: NodeProto) -> str:
    """How a message names a node: by its name, or by what it makes."""
    label = node.name or (node.output[0] if node.output else "")
    return f"node {label[:80]!r} ({node.op_type[:80]})"


def _check_counts(found: Contents, graph: Any) -> None:
    """Before anything is walked: two bytes of a file can make a node, so a small upload can hold a great many."""
    nodes = len(found.nodes) + len(graph.node)
    if nodes > MOST_NODES:
        raise InvalidModel(f"the model has more than {MOST_NODES:,} nodes")
    for name in ("initializer", "sparse_initializer", "value_info", "input", "output"):
        if len(getattr(graph, name, ())) > MOST_TENSORS:
            raise InvalidModel(f"a graph of the model has more than {MOST_TENSORS:,} entries under {name!r}")


def _read_attribute(
    found: Contents, owner: NodeProto | str, attribute: AttributeProto, depth: int
) -> Iterator[tuple[str, GraphProto, int]]:
    """Note what the attribute holds, whatever type it claims; yield the graphs in it."""
    found.attributes.append(attribute)
    for descriptor, value in attribute.ListFields():
        match descriptor.name:
            case "t" | "tensors" | "sparse_tensor" | "sparse_tensors" | "g" | "graphs" as kind:
                where = f"attribute {attribute.name[:80]!r} of {owner if isinstance(owner, str) else name_of(owner)}"
                for item in [value] if kind in ("t", "sparse_tensor", "g") else value:
                    if kind in ("t", "tensors"):
                        found.tensors.append((where, item))
                    elif kind in ("g", "graphs"):
                        yield where, item, depth + 1
                    else:
                        _add_sparse(found, where, item)
            case "s" if len(value) > LONGEST_TEXT:
                raise InvalidModel(f"attribute {attribute.name[:80]!r} holds a text of {len(value):,} bytes")
            case "name" | "ref_attr_name" if len(value) > LONGEST_NAME:
                raise InvalidModel(
                    f"the model has a name of {len(value):,} characters; at most {LONGEST_NAME:,} are taken"
                )


def _add_sparse(found: Contents, where: str, sparse: SparseTensorProto) -> None:
    found.sparse.append((where, sparse))
    found.tensors.append((f"values of {where}", sparse.values))
    found.tensors.append((f"indices of {where}", sparse.indices))

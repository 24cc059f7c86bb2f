"""Read the Signature of an ONNX model: what a request must hold and what an answer holds.

Inputs are the graph's inputs that no initializer fills. A dynamic or unnamed axis is -1. What cannot travel as a tensor
of the V2 protocol (sequences, maps, optionals, complex numbers, four-bit types) is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_store.datatypes import ONNX
from model_store.entities import Signature, TensorSpec
from model_store.errors import InvalidModel

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

_KINDS = {
    "sequence_type": "a sequence",
    "map_type": "a map",
    "optional_type": "an optional",
    "sparse_tensor_type": "a sparse tensor",
    "opaque_type": "an opaque value",
}
_TYPE_NAMES = {
    0: "no element type", 14: "COMPLEX64", 15: "COMPLEX128", 17: "FLOAT8E4M3FN", 18: "FLOAT8E4M3FNUZ", 19: "FLOAT8E5M2",
    20: "FLOAT8E5M2FNUZ", 21: "UINT4", 22: "INT4", 23: "FLOAT4E2M1", 24: "FLOAT8E8M0", 25: "UINT2", 26: "INT2",
}  # fmt: skip
_LONGEST_NAME = 1024


def read_signature(model: ModelProto) -> Signature:
    """The signature of `model`. Raises InvalidModel naming the input or output that cannot be served, and why."""
    return Signature(
        inputs=tuple(_spec("input", value) for value in free_inputs(model.graph)),
        outputs=tuple(_spec("output", value) for value in model.graph.output),
    )


def free_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs a caller must give: in old models (IR 3) every weight is listed among the inputs too."""
    filled = {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in filled]


def _spec(role: str, value: ValueInfoProto) -> TensorSpec:
    name = value.name
    if isinstance(name, bytes):  # how protobuf hands out a text that is none
        raise InvalidModel(f"{role} {name[:60]!r}: the name is no valid UTF-8")
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidModel(
            f"{role} {name[:60]!r}: names of inputs and outputs must be 1 to {_LONGEST_NAME} printable characters"
        )
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise InvalidModel(
            f"{role} {name!r} is {_KINDS.get(kind, 'of no type')}; only tensors can be served"
            + (
                "; export a classifier with zipmap=False so that its probabilities are a tensor"
                if role == "output"
                else ""
            )
        )
    tensor = value.type.tensor_type
    if tensor.elem_type not in ONNX:
        raise InvalidModel(
            f"{role} {name!r} has element type {_TYPE_NAMES.get(tensor.elem_type, tensor.elem_type)}, "
            f"which the protocol cannot carry; it can carry {', '.join(ONNX.values())}"
        )
    if not tensor.HasField("shape"):
        raise InvalidModel(
            f"{role} {name!r} has no shape and none can be derived; declare its rank (axes may be dynamic)"
        )
    return TensorSpec(name, ONNX[tensor.elem_type], tuple(_axis(dim) for dim in tensor.shape.dim))


def _axis(dim: object) -> int:
    # Some exporters write a dynamic axis as the value -1 instead of naming it.
    size: int = dim.dim_value if dim.HasField("dim_value") else -1  # type: ignore[attr-defined]
    return max(size, -1)

"""Where a model's arithmetic is: multiply-accumulates by node, and the precision at which each computes.

Counted from shapes, for one row: a product of [M, K] and [K, N] is M*K*N, a convolution its outputs times the weights
each of them sees (the way He et al. 2015 count, who give ResNet-50 3.8 G with the stride in the first convolution of a
block; 4.1 G with it in the second). Biases, activations and norms are left out, as everywhere in the literature. Only
the main graph is read: how often the body of a Loop runs is nobody's knowledge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto

from compilers.tensor_shapes import Known, infer

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One node that multiplies. `precision`: f32, f16, bf16, int8, or int8-weights where only the weights are."""

    node: str
    kind: str
    macs: int
    precision: str


class Uncountable(ValueError):
    """The shapes of a node that multiplies cannot be known before the model runs."""


def parts(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> Iterator[Part]:
    """Every node of the main graph that multiplies. `sizes`: input -> its shape for one row. Raises Uncountable."""
    known = infer(model, sizes)
    made = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        count = COUNTS.get(node.op_type)
        if count is None:
            continue
        try:
            macs = count(_Shapes(node, known))
        except (KeyError, IndexError, ValueError) as exc:
            label = node.name or (node.output[0] if node.output else "")
            raise Uncountable(f"{node.op_type} {label!r}: the shape of {exc} is not known") from exc
        yield Part(node.name or node.output[0], node.op_type, macs, _precision(node, known, made))


def anatomy(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> tuple[int | None, dict[str, float]]:
    """(MACs of one row, precision -> share of them). (None, {}) where a shape cannot be known: no part is no answer."""
    try:
        found = list(parts(model, sizes))
    except Uncountable:
        return None, {}
    total = sum(part.macs for part in found)
    counts: dict[str, int] = {}
    for part in found:
        counts[part.precision] = counts.get(part.precision, 0) + part.macs
    return total, {precision: count / total for precision, count in counts.items()} if total else {}


class _Shapes:
    """A node with the shapes around it. Indexing raises KeyError with the tensor whose shape is not known."""

    def __init__(self, node: NodeProto, known: Known) -> None:
        self.node = node
        self._known = known

    def input(self, index: int) -> Shape:
        return self._known.shapes[self.node.input[index]]

    def output(self, index: int = 0) -> Shape:
        return self._known.shapes[self.node.output[index]]

    def attribute(self, name: str, default: int) -> int:
        return next((int(item.i) for item in self.node.attribute if item.name == name), default)

    def text(self, name: str) -> str:
        return next(str(item.s.decode()) for item in self.node.attribute if item.name == name)


def _conv(at: _Shapes, weights: int = 1) -> int:
    """Weights are [O, I / group, kernel...]."""
    return math.prod(at.output()) * math.prod(at.input(weights)[1:])


def _conv_transpose(at: _Shapes) -> int:
    """Weights are [I, O / group, kernel...]: every *input* element meets the weights of its channel."""
    return math.prod(at.input(0)) * math.prod(at.input(1)[1:])


def _matmul(at: _Shapes) -> int:
    return math.prod(at.output()) * at.input(0)[-1]


def _gemm(at: _Shapes) -> int:
    return math.prod(at.output()) * at.input(0)[0 if at.attribute("transA", 0) else 1]


def _matmul_nbits(at: _Shapes) -> int:
    return math.prod(at.output()) * at.attribute("K", 0)


def _einsum(at: _Shapes) -> int:
    """The product of all index sizes. Source: the definition; contraction in another order may need fewer."""
    terms = at.text("equation").replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        if "." in term:
            raise ValueError("an ellipsis")
        sizes |= dict(zip(term, at.input(index), strict=True))
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def _recurrent(gates: int) -> Callable[[_Shapes], int]:
    """X [sequence, batch, I]; W [directions, gates*H, I]; R [directions, gates*H, H]."""

    def count(at: _Shapes) -> int:
        steps, rows = at.input(0)[:2]
        return steps * rows * (math.prod(at.input(1)) + math.prod(at.input(2)))

    assert gates
    return count


def _attention(at: _Shapes) -> int:
    """Scores and their product with the values: 2 * L_q * L_k * width for every row. Source: Vaswani et al. 2017.

    `Attention` of ONNX takes q, k, v as [B, L, width] or [B, heads, L, size]; that of com.microsoft the states [B, L,
    width] and the weights [width, 3 * width] of all three projections.
    """
    states = at.input(0)
    if at.node.domain == "com.microsoft" and at.node.op_type == "Attention":
        rows, length, _ = states
        width = at.input(1)[1] // 3
        return rows * length * math.prod(at.input(1)) + 2 * rows * length * length * width
    return 2 * math.prod(states) * at.input(1)[-2]


COUNTS: dict[str, Callable[[_Shapes], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": lambda at: _conv(at, weights=3),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "FusedMatMul": _matmul,
    "MatMulNBits": _matmul_nbits,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LSTM": _recurrent(4),
    "GRU": _recurrent(3),
    "RNN": _recurrent(1),
    "Attention": _attention,
    "MultiHeadAttention": _attention,
}
"""Operator -> how many multiply-accumulates one run of it makes."""

_INTEGER = frozenset({"ConvInteger", "QLinearConv", "MatMulInteger", "QLinearMatMul"})
_MOVES = frozenset({"Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Cast"})
"""Operators that leave numbers as they are: a quantizer may put one between its DequantizeLinear and the product."""

_NAMES = {
    TensorProto.FLOAT: "f32", TensorProto.FLOAT16: "f16", TensorProto.BFLOAT16: "bf16", TensorProto.DOUBLE: "f64",
    TensorProto.INT8: "int8", TensorProto.UINT8: "int8", TensorProto.INT4: "int4", TensorProto.UINT4: "int4",
    TensorProto.INT16: "int16", TensorProto.UINT16: "int16", TensorProto.FLOAT8E4M3FN: "f8",
    TensorProto.FLOAT8E5M2: "f8",
}  # fmt: skip


def _precision(node: NodeProto, known: Known, made: Mapping[str, NodeProto]) -> str:
    """Between quantized tensors a product computes on integers; with only its weights quantized, in float."""
    if node.op_type in _INTEGER:
        return "int8"
    if node.op_type == "MatMulNBits":
        return f"int{next((item.i for item in node.attribute if item.name == 'bits'), 4)}-weights"
    operands = [_quantized(name, known, made) for name in node.input[:2]]
    if all(operands) and operands:
        return max(operands, key=len) if len(set(operands)) > 1 else operands[0]
    if any(operands):
        return f"{next(filter(None, operands))}-weights"
    return _NAMES.get(known.types.get(node.input[0], 0), "f32")


def _quantized(name: str, known: Known, made: Mapping[str, NodeProto]) -> str:
    """The type a tensor was quantized to just before, or "" when it was not."""
    node = made.get(name)
    while node is not None and node.op_type in _MOVES:
        node = made.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        return ""
    return _NAMES.get(known.types.get(node.input[0], 0), "int8")

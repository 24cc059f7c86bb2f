"""Small real models for the tests, built in code: seeded, opset 17, IR 8, checked by ONNX and runnable in ONNX Runtime.

Each function makes one kind of model that a gateway meets (plain, several inputs, text, a scalar answer, a fixed
batch, rows that see one another, ...). `random_inputs` gives valid inputs for any of them, `npz` writes samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_store import datatypes
from model_store.entities import Signature

FLOAT, INT32, INT64, STRING = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.STRING
INT8 = TensorProto.INT8
Shape = Sequence[int | str]


class Graph:
    """Collects nodes and weights in order; `finish` makes the checked model."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"/{output}", **attributes))
        return output

    def constant(self, value: Any) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def floats(self, *shape: int, scale: float | None = None) -> str:
        """A random float32 weight whose default scale keeps activations near one."""
        scale = (1 / np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else shape[0])) if scale is None else scale
        return self.constant((self.random.standard_normal(shape, dtype=np.float32) * scale).astype(np.float32))

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        return self.node("Add", self.node("MatMul", x, self.floats(inputs, outputs)), self.floats(outputs, scale=0.1))

    def finish(
        self, inputs: Mapping[str, tuple[int, Shape]], outputs: Mapping[str, tuple[int, Shape]]
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        model.producer_name = "forgeway-tests"
        return model


def mlp(hidden: int = 128, inputs: int = 64, outputs: int = 10, seed: int = 0) -> onnx.ModelProto:
    """x: [N, inputs] float32 -> y: [N, outputs] float32. Two Gemm layers with a Relu between."""
    g = Graph("mlp", seed)
    h = g.node("Relu", g.node("Gemm", "x", g.floats(inputs, hidden), g.floats(hidden, scale=0.1)))
    g.node("Gemm", h, g.floats(hidden, outputs), g.floats(outputs, scale=0.1), output="y")
    return g.finish({"x": (FLOAT, ("N", inputs))}, {"y": (FLOAT, ("N", outputs))})


def transformer(layers: int = 2, width: int = 64, heads: int = 4, vocab: int = 100, seed: int = 0) -> onnx.ModelProto:
    """input_ids, attention_mask: [N, S] int64 -> hidden: [N, S, width] float32. A pre-fusion encoder, as exported."""
    g = Graph("transformer", seed)
    x = g.node("Gather", g.floats(vocab, width, scale=1.0), "input_ids", axis=0)
    mask = g.node("Unsqueeze", g.node("Cast", "attention_mask", to=FLOAT), g.constant(np.array([1, 2], np.int64)))
    hidden_keys = g.node("Sub", g.constant(np.float32(1)), mask)
    bias = g.node("Mul", hidden_keys, g.constant(np.float32(-10000)))
    for _ in range(layers):
        x = _layer_norm(g, g.node("Add", x, _attention(g, x, bias, width, heads)), width)
        inner = g.dense(x, width, width * 4)
        gate = g.node("Div", inner, g.constant(np.float32(np.sqrt(2))))
        gate = g.node("Add", g.node("Erf", gate), g.constant(np.float32(1)))
        gelu = g.node("Mul", g.node("Mul", inner, gate), g.constant(np.float32(0.5)))
        x = _layer_norm(g, g.node("Add", x, g.dense(gelu, width * 4, width)), width)
    g.node("Identity", x, output="hidden")
    tokens = (INT64, ("N", "S"))
    return g.finish({"input_ids": tokens, "attention_mask": tokens}, {"hidden": (FLOAT, ("N", "S", width))})


def outliers(
    layers: int = 2, width: int = 64, channels: int = 3, size: float = 100.0, seed: int = 0
) -> onnx.ModelProto:
    """features: [N, S, width] float32 -> scores: [N, S, 10] float32. An encoder whose int8 fails for its outliers.

    As in large language models, `channels` of every LayerNormalization's answer are `size` times the others, and what
    reads them has weights as much smaller: each channel matters, but one scale for all leaves most of them nothing.
    """
    g = Graph("outliers", seed)
    x, hidden = "features", width * 2
    loud = np.ones(width, np.float32)
    loud[g.random.permutation(width)[:channels]] = size

    def normed(value: str, scale: np.ndarray) -> str:
        shift = (g.random.standard_normal(width) * 0.1).astype(np.float32) * scale
        return g.node("LayerNormalization", value, g.constant(scale), g.constant(shift), axis=-1, epsilon=1e-5)

    def reading(value: str, outputs: int, output: str | None = None) -> str:
        weight = g.random.standard_normal((width, outputs)).astype(np.float32) / np.sqrt(width) / loud[:, None]
        product = g.node("MatMul", value, g.constant(weight.astype(np.float32)))
        return g.node("Add", product, g.floats(outputs, scale=0.1), output=output)

    for _ in range(layers):
        inner = g.node("Relu", reading(normed(x, loud), hidden))
        x = g.node("Add", x, g.dense(inner, hidden, width))
    reading(normed(x, loud), 10, output="scores")
    return g.finish({"features": (FLOAT, ("N", "S", width))}, {"scores": (FLOAT, ("N", "S", 10))})


def residual_cnn(channels: int = 16, blocks: int = 2, size: int = 16, seed: int = 0) -> onnx.ModelProto:
    """image: [N, 3, size, size] float32 -> logits: [N, 10] float32. Convolutions with BatchNormalization unfolded."""
    g = Graph("residual_cnn", seed)
    x = g.node("Relu", _convolution(g, "image", 3, channels))
    for _ in range(blocks):
        inner = g.node("Relu", _convolution(g, x, channels, channels))
        x = g.node("Relu", g.node("Add", x, _convolution(g, inner, channels, channels)))
    pooled = g.node("Flatten", g.node("GlobalAveragePool", x), axis=1)
    g.node("Gemm", pooled, g.floats(channels, 10), g.floats(10, scale=0.1), output="logits")
    return g.finish({"image": (FLOAT, ("N", 3, size, size))}, {"logits": (FLOAT, ("N", 10))})


def multi_io() -> onnx.ModelProto:
    """a: [N, 4] float32, b: [N, 4] int32 -> sum, difference: [N, 4] float32."""
    g = Graph("multi_io", 0)
    b = g.node("Cast", "b", to=FLOAT)
    g.node("Add", "a", b, output="sum")
    g.node("Sub", "a", b, output="difference")
    return g.finish(
        {"a": (FLOAT, ("N", 4)), "b": (INT32, ("N", 4))},
        {"sum": (FLOAT, ("N", 4)), "difference": (FLOAT, ("N", 4))},
    )


def strings() -> onnx.ModelProto:
    """text: [N] BYTES -> same: [N] BYTES, unchanged."""
    g = Graph("strings", 0)
    g.node("Identity", "text", output="same")
    return g.finish({"text": (STRING, ("N",))}, {"same": (STRING, ("N",))})


def scalar_output() -> onnx.ModelProto:
    """x: [N, 4] float32 -> mean: [] float32, a scalar over every row."""
    g = Graph("scalar_output", 0)
    g.node("ReduceMean", "x", output="mean", keepdims=0)
    return g.finish({"x": (FLOAT, ("N", 4))}, {"mean": (FLOAT, ())})


def fixed_batch() -> onnx.ModelProto:
    """x: [2, 4] float32 -> y: [2, 4] float32 (y = 2x). The batch axis is fixed: rows cannot be added."""
    g = Graph("fixed_batch", 0)
    g.node("Mul", "x", g.constant(np.float32(2)), output="y")
    return g.finish({"x": (FLOAT, (2, 4))}, {"y": (FLOAT, (2, 4))})


def batch_mixing() -> onnx.ModelProto:
    """x: [N, 4] float32 -> y: [N, 4] float32, centred over the batch: rows see one another, so never batch requests."""
    g = Graph("batch_mixing", 0)
    g.node("Sub", "x", g.node("ReduceMean", "x", axes=[0], keepdims=1), output="y")
    return g.finish({"x": (FLOAT, ("N", 4))}, {"y": (FLOAT, ("N", 4))})


def big(megabytes: int, seed: int = 0) -> onnx.ModelProto:
    """x: [N, 1024] float32 -> y: [N, 1024] float32. A chain of Gemms whose weights take `megabytes` MB (4 each)."""
    g = Graph("big", seed)
    x, layers = "x", max(1, megabytes // 4)
    for layer in range(layers):
        x = g.node("Gemm", x, g.floats(1024, 1024), output="y" if layer == layers - 1 else None)
    return g.finish({"x": (FLOAT, ("N", 1024))}, {"y": (FLOAT, ("N", 1024))})


def simple() -> onnx.ModelProto:
    """INPUT0, INPUT1: [N, 16] int32 -> OUTPUT0 their sum, OUTPUT1 their difference: the classic of V2 client tests."""
    g = Graph("simple", 0)
    g.node("Add", "INPUT0", "INPUT1", output="OUTPUT0")
    g.node("Sub", "INPUT0", "INPUT1", output="OUTPUT1")
    row = (INT32, ("N", 16))
    return g.finish({"INPUT0": row, "INPUT1": row}, {"OUTPUT0": row, "OUTPUT1": row})


def simple_int8() -> onnx.ModelProto:
    """As `simple`, in int8. (ONNX Runtime adds int8 as int32.)"""
    g = Graph("simple_int8", 0)
    left, right = (g.node("Cast", name, to=INT32) for name in ("INPUT0", "INPUT1"))
    g.node("Cast", g.node("Add", left, right), to=INT8, output="OUTPUT0")
    g.node("Cast", g.node("Sub", left, right), to=INT8, output="OUTPUT1")
    row = (INT8, ("N", 16))
    return g.finish({"INPUT0": row, "INPUT1": row}, {"OUTPUT0": row, "OUTPUT1": row})


def simple_string() -> onnx.ModelProto:
    """As `simple`, its numbers written as text: INPUT0, INPUT1: [N, 16] BYTES -> OUTPUT0, OUTPUT1: [N, 16] BYTES."""
    g = Graph("simple_string", 0)
    left, right = (g.node("Cast", name, to=INT32) for name in ("INPUT0", "INPUT1"))
    g.node("Cast", g.node("Add", left, right), to=STRING, output="OUTPUT0")
    g.node("Cast", g.node("Sub", left, right), to=STRING, output="OUTPUT1")
    row = (STRING, ("N", 16))
    return g.finish({"INPUT0": row, "INPUT1": row}, {"OUTPUT0": row, "OUTPUT1": row})


def identity(element: int, shape: Shape = ("N", "M")) -> onnx.ModelProto:
    """INPUT0 -> OUTPUT0, unchanged; of any element type of ONNX (`TensorProto.BFLOAT16`, ...)."""
    g = Graph("identity", 0)
    g.node("Identity", "INPUT0", output="OUTPUT0")
    return g.finish({"INPUT0": (element, shape)}, {"OUTPUT0": (element, shape)})


def slow() -> onnx.ModelProto:
    """x: [N, 4] float32, turns: [N, 1] int64 -> y: [N, 4] float32 = x, after as many turns of a loop as asked for.

    A turn takes microseconds: a hundred thousand make an answer late.
    """
    g = Graph("slow", 0)
    turns = g.node("ReduceMax", "turns", keepdims=0)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Neg", ["at"], ["below"]),
            helper.make_node("Neg", ["below"], ["after"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("at", FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", FLOAT, ["N", 4]),
        ],
    )
    g.node("Loop", turns, "", "x", output="y", body=body)
    return g.finish({"x": (FLOAT, ("N", 4)), "turns": (INT64, ("N", 1))}, {"y": (FLOAT, ("N", 4))})


def npz(path: Path, **arrays: np.ndarray) -> Path:
    """Write samples: one array per input, first axis = sample; `labels` optional."""
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path


def random_inputs(
    model: onnx.ModelProto | Signature, rows: int, seed: int = 0, dynamic: int = 8
) -> dict[str, np.ndarray]:
    """Valid inputs: `rows` on a dynamic first axis, `dynamic` on every other dynamic axis.

    Whole numbers lie in 0..9 (safe as token ids); `attention_mask` is ones with a zero tail of a different length
    per row, so padding is exercised.
    """
    random = np.random.default_rng(seed)
    return {
        name: _random_tensor(random, name, datatype, _sizes(shape, rows, dynamic))
        for name, datatype, shape in _inputs(model)
    }


def _random_tensor(random: np.random.Generator, name: str, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    if datatype == "BYTES":
        words = np.empty(shape, object)
        words.flat = [f"word {value} \u00fc".encode() for value in random.integers(0, 1000, words.size)]
        return words
    dtype = datatypes.numpy_dtype(datatype)
    if name == "attention_mask":
        lengths = random.integers(1, shape[1] + 1, shape[0])
        return (np.arange(shape[1]) < lengths[:, None]).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return random.integers(0, 10, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def _inputs(model: onnx.ModelProto | Signature) -> list[tuple[str, str, tuple[int, ...]]]:
    if isinstance(model, Signature):
        return [(spec.name, spec.datatype, tuple(spec.shape)) for spec in model.inputs]
    weights = {weight.name for weight in model.graph.initializer}
    return [
        (
            value.name,
            datatypes.ONNX[value.type.tensor_type.elem_type],
            tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim),
        )
        for value in model.graph.input
        if value.name not in weights
    ]


def _sizes(shape: tuple[int, ...], rows: int, dynamic: int) -> tuple[int, ...]:
    return tuple((rows if axis == 0 else dynamic) if size == -1 else size for axis, size in enumerate(shape))


def _convolution(g: Graph, x: str, inputs: int, outputs: int) -> str:
    x = g.node("Conv", x, g.floats(outputs, inputs, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    scale = g.constant(g.random.uniform(0.8, 1.2, outputs).astype(np.float32))
    variance = g.constant(g.random.uniform(0.5, 1.5, outputs).astype(np.float32))
    shift, mean = g.floats(outputs, scale=0.1), g.floats(outputs, scale=0.1)
    return g.node("BatchNormalization", x, scale, shift, mean, variance, epsilon=1e-5)


def _attention(g: Graph, x: str, bias: str, width: int, heads: int) -> str:
    split = g.constant(np.array([0, 0, heads, width // heads], np.int64))
    query, key, value = (g.node("Reshape", g.dense(x, width, width), split) for _ in range(3))
    query, value = (g.node("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
    scores = g.node("MatMul", query, g.node("Transpose", key, perm=[0, 2, 3, 1]))
    scores = g.node("Div", scores, g.constant(np.float32(np.sqrt(width // heads))))
    weights = g.node("Softmax", g.node("Add", scores, bias), axis=-1)
    mixed = g.node("Transpose", g.node("MatMul", weights, value), perm=[0, 2, 1, 3])
    return g.dense(g.node("Reshape", mixed, g.constant(np.array([0, 0, width], np.int64))), width, width)


def _layer_norm(g: Graph, x: str, width: int) -> str:
    scale, shift = g.constant(np.ones(width, np.float32)), g.constant(np.zeros(width, np.float32))
    return g.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

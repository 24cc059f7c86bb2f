"""Multiply-accumulates against counts made by hand, and at which precision each node computes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import networks
from compilers.anatomy import Uncountable, anatomy, parts
from compilers.passes import run_passes
from compilers.precision import at_precision
from compilers.recipe import PassSpec
from tests import zoo

FLOAT = TensorProto.FLOAT


def one_node(
    kind: str,
    weights: Sequence[tuple[int, ...]],
    inputs: dict[str, Sequence[int | str]],
    domain: str = "",
    dtype: type[np.generic] = np.float32,
    **attributes: Any,
) -> onnx.ModelProto:
    """`kind` alone, on the inputs and then on constants of these shapes; its output has no shape of its own."""
    held = [numpy_helper.from_array(np.ones(shape, dtype), f"w{n}") for n, shape in enumerate(weights)]
    names = [*inputs, *(tensor.name for tensor in held)]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node(kind, names, ["y"], name="it", domain=domain, **attributes)
    given = [helper.make_tensor_value_info(name, element, list(shape)) for name, shape in inputs.items()]
    graph = helper.make_graph([node], "g", given, [helper.make_empty_tensor_value_info("y")], held)
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize(
    ("kind", "weights", "shape", "attributes", "macs"),
    [
        ("Conv", [(8, 3, 3, 3)], (1, 3, 10, 10), {"pads": [1, 1, 1, 1]}, 8 * 100 * 27),
        ("Conv", [(8, 3, 3, 3)], (1, 3, 11, 11), {"strides": [2, 2]}, 8 * 25 * 27),
        ("Conv", [(6, 1, 5)], (1, 6, 20), {"group": 6}, 6 * 16 * 5),
        ("ConvTranspose", [(3, 8, 2, 2)], (1, 3, 5, 5), {"strides": [2, 2]}, 3 * 25 * 8 * 4),
        ("MatMul", [(7, 5)], (1, 4, 7), {}, 4 * 7 * 5),
        ("Gemm", [(7, 5), (5,)], (1, 7), {}, 35),
        ("Gemm", [(5, 7)], (7, 1), {"transA": 1, "transB": 1}, 35),
        ("Einsum", [(7, 3, 4)], (1, 6, 7), {"equation": "bld,dhk->bhlk"}, 6 * 7 * 3 * 4),
        ("LSTM", [(1, 4 * 5, 3), (1, 4 * 5, 5)], (9, 1, 3), {"hidden_size": 5}, 9 * (4 * 5 * 3 + 4 * 5 * 5)),
    ],
)
def test_one_node_counts_as_by_hand(
    kind: str, weights: list[tuple[int, ...]], shape: tuple[int, ...], attributes: dict[str, Any], macs: int
) -> None:
    model = one_node(kind, weights, {"x": ["N"] * len(shape)}, **attributes)
    assert anatomy(model, {"x": shape}) == (macs, {"f32": 1.0})


def test_attention_counts_scores_and_values() -> None:
    model = one_node("MultiHeadAttention", [], dict.fromkeys("qkv", ("N", "L", 32)), "com.microsoft", num_heads=4)
    assert anatomy(model, dict.fromkeys("qkv", (1, 10, 32)))[0] == 2 * 10 * 10 * 32
    fused = one_node("Attention", [(32, 96), (96,)], {"x": ("N", "L", 32)}, "com.microsoft", num_heads=4)
    assert anatomy(fused, {"x": (1, 10, 32)})[0] == 10 * 32 * 96 + 2 * 10 * 10 * 32


@pytest.mark.parametrize(("network", "published"), [(networks.resnet50, 4.1e9), (networks.mobilenet_v2, 0.3e9)])
def test_known_networks_count_as_published(network: Callable[[int], onnx.ModelProto], published: float) -> None:
    """He et al. 2015 with the stride in the 3x3 (torchvision's table: 4.09 G); Sandler et al. 2018, table 4: 300 M."""
    macs, shares = anatomy(network(0), {"image": (1, 3, 224, 224)})
    assert macs == pytest.approx(published, rel=0.01)
    assert shares == {"f32": pytest.approx(1.0)}


def test_a_transformer_of_any_length_counts_as_by_hand() -> None:
    length, width = 20, 64
    model = zoo.transformer(layers=2, width=width, heads=4)
    sizes = {given.name: (1, length) for given in model.graph.input}
    kinds = [part.kind for part in parts(model, sizes)]
    attention = 4 * length * width * width + 2 * length * length * width
    feed_forward = 2 * length * width * 4 * width
    assert sum(part.macs for part in parts(model, sizes) if "MatMul" in part.kind) == 2 * (attention + feed_forward)
    assert set(kinds) == {"MatMul"}


def test_what_was_quantized_is_told_from_what_was_not() -> None:
    model = zoo.residual_cnn()
    images = zoo.random_inputs(model, 8)
    sizes = {name: (1, *array.shape[1:]) for name, array in images.items()}
    specs = [PassSpec("raise-opset"), PassSpec("fold-batch-norm"), PassSpec("int8-static")]
    before, after = anatomy(model, sizes), anatomy(run_passes(model, specs, images), sizes)
    assert before[1] == {"f32": pytest.approx(1.0)}
    assert after[0] == before[0]
    assert after[1]["int8"] > 0.9 and sum(after[1].values()) == pytest.approx(1.0)


def test_integer_kernels_are_int8() -> None:
    model = zoo.mlp()
    assert anatomy(run_passes(model, [PassSpec("int8-dynamic")]), {"x": (1, 64)})[1] == {"int8": pytest.approx(1.0)}


def test_weights_alone_quantized_compute_in_float() -> None:
    dequantize = helper.make_node("DequantizeLinear", ["q", "scale"], ["w"])
    turned = helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0])
    product = helper.make_node("MatMul", ["x", "wt"], ["y"], name="product")
    graph = helper.make_graph(
        [dequantize, turned, product],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.ones((3, 4), np.int8), "q"),
            numpy_helper.from_array(np.float32(0.5), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert anatomy(model, {"x": (1, 4)}) == (12, {"int8-weights": 1.0})


def test_half_precision_is_told_by_its_type() -> None:
    model = one_node("MatMul", [(7, 5)], {"x": ("N", 7)}, dtype=np.float16)
    assert anatomy(model, {"x": (1, 7)})[1] == {"f16": 1.0}


def test_a_shape_that_only_a_run_can_tell_leaves_the_count_open() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["found"]),
        helper.make_node("Cast", ["found"], ["f"], to=FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["t", "f"], ["y"], name="product"),
    ]
    given = [helper.make_tensor_value_info("x", FLOAT, ["N", 4])]
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("y", FLOAT, ["A", "B"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert anatomy(model, {"x": (1, 4)}) == (None, {})
    with pytest.raises(Uncountable, match="product"):
        list(parts(model, {"x": (1, 4)}))


def test_a_model_without_products_has_no_shares() -> None:
    assert anatomy(zoo.identity(FLOAT), {"x": (1, 4)}) == (0, {})


def test_what_stayed_in_float_runs_as_the_target_was_told() -> None:
    shares = {"int8": 0.9, "f32": 0.1}
    assert at_precision(shares, {"precision": "int8", "inference_precision": "bf16"}) == {"int8": 0.9, "bf16": 0.1}
    assert at_precision({"f32": 1.0}, {"precision": "bf16"}) == {"bf16": 1.0}
    assert at_precision(shares, {"precision": "int8"}) == shares

"""Mixed precision in the graph: what is cast, what stays in float32 and why, and that runtimes agree with it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from compilers.passes import PassFailed, run_passes
from compilers.recipe import PassSpec
from compilers.targets.openvino import OpenVinoCpu
from compilers.targets.ort import OrtCpu
from tests import zoo

MODELS = {"cnn": zoo.residual_cnn, "transformer": zoo.transformer, "mlp": zoo.mlp, "outliers": zoo.outliers}


def cast(model, samples=None, **params):
    given = zoo.random_inputs(model, 16, seed=1) if samples is None else samples
    return run_passes(model, [PassSpec("cast", params)], given)


def types(model):
    """Node name -> element type of its first output."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    return {node.name: known[node.output[0]] for node in model.graph.node if node.op_type != "Cast"}


def decibels(expected, got):
    noise = np.linalg.norm(expected - got) or 1e-30
    return 20 * np.log10(np.linalg.norm(expected) / noise)


def of_openvino(model, inputs, folder):
    onnx.save(model, folder / "m.onnx")
    built = OpenVinoCpu().build(folder / "m.onnx", folder, {"precision": "f32"})
    return OpenVinoCpu().open(built.files, built.options, 1).run(inputs)


def of_ort(model, inputs, folder):
    onnx.save(model, folder / "m.onnx")
    return OrtCpu().open({"model.onnx": folder / "m.onnx"}, {}, 1).run(inputs)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", MODELS)
def test_answers_keep_their_types_and_agree_within_the_precision(kind, precision, tmp_path):
    model = MODELS[kind]()
    after = cast(model, precision=precision)
    onnx.checker.check_model(after, full_check=True)
    inputs = zoo.random_inputs(model, 8, seed=7)
    run = of_ort if precision == "fp16" else of_openvino  # ONNX Runtime has no bfloat16 kernels on CPU
    expected, got = of_ort(model, inputs, tmp_path), run(after, inputs, tmp_path)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        assert decibels(array, got[name]) > (45 if precision == "fp16" else 25)


def test_products_are_cast_and_weights_halved():
    model = zoo.residual_cnn()
    after = cast(model)
    assert after.ByteSize() < 0.62 * model.ByteSize()
    kinds = Counter((node.op_type, types(after)[node.name]) for node in after.graph.node if node.op_type != "Cast")
    assert {kind for kind, element in kinds if element == TensorProto.FLOAT} == set()
    assert sum(node.op_type == "Cast" for node in after.graph.node) == 2, "one at the way in, one at the way out"


def test_what_loses_stays_in_float32():
    after = cast(zoo.transformer())
    found = types(after)
    soft = [found[node.name] for node in after.graph.node if node.op_type == "Softmax"]
    assert soft == [TensorProto.FLOAT] * 2
    masks = [node for node in after.graph.node if node.op_type in ("Sub", "Mul") and "weight" in str(node.input)]
    assert any(found[node.name] == TensorProto.FLOAT for node in masks), "minus ten thousand is beyond what is safe"
    assert Counter(found.values())[TensorProto.FLOAT16] > 30


def test_a_weight_beyond_float16_and_what_was_seen_too_large_stay():
    model = zoo.mlp()
    first, _, second = model.graph.node
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    array = numpy_helper.to_array(weights[second.input[1]]).copy()
    array[0, 0] = 1e6
    weights[second.input[1]].CopyFrom(numpy_helper.from_array(array, second.input[1]))
    found = types(cast(model))
    assert found[second.name] == TensorProto.FLOAT
    assert found[first.name] == TensorProto.FLOAT16
    loud = {"x": 1e4 * zoo.random_inputs(model, 16)["x"]}
    assert set(types(cast(model, loud)).values()) == {TensorProto.FLOAT}
    assert types(cast(model, loud, data_most=1e9))[first.name] == TensorProto.FLOAT16
    assert types(cast(model, loud, precision="bf16"))[second.name] == TensorProto.BFLOAT16, "bfloat16 has the range"


def test_nodes_that_are_named_stay():
    model = zoo.mlp()
    name = model.graph.node[0].name
    found = types(cast(model, keep=[name]))
    assert found.pop(name) == TensorProto.FLOAT
    assert set(found.values()) == {TensorProto.FLOAT16}
    with pytest.raises(PassFailed, match="no node '/gem'"):
        cast(model, keep=["/gem"])
    with pytest.raises(PassFailed, match="fp16 or bf16"):
        cast(model, precision="fp8")

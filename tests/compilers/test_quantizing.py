"""Quantized models are near the original, are fused by the runtime, and leave out what they are told to."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from compilers.passes import PassFailed, run_passes
from compilers.passes.regions import regions
from compilers.recipe import PassSpec
from compilers.targets.openvino import OpenVinoCpu
from tests import zoo
from tests.compilers.quantized import correlated, deep_gemm, outputs_of, sqnr

FOLD = PassSpec("fold-batch-norm")
STATIC = PassSpec("int8-static")


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_bias_correction_takes_the_shift_out_of_the_mean(kind, tmp_path):
    model = deep_gemm()
    if kind == "MatMul":
        model.graph.node[0].CopyFrom(helper.make_node("MatMul", ["x", "w"], ["p"], name="gemm"))
        model.graph.node.append(helper.make_node("Add", ["p", "b"], ["y"], name="add"))
    seen, held_out = correlated(256, 256, 1), correlated(512, 256, 2)
    expected = outputs_of(model, {"x": held_out}, tmp_path)["y"]
    shifts = []
    for corrected in (False, True):
        spec = PassSpec("int8-static", {"bias_correction": corrected, "regions": False})
        got = outputs_of(run_passes(model, [spec], {"x": seen}), {"x": held_out}, tmp_path)["y"]
        shifts.append(np.abs((got - expected).mean(axis=0)).mean())
    assert shifts[1] < shifts[0] / 2


INTEGER = {
    "mlp": (zoo.mlp, {"QGemm": 2}),
    "residual_cnn": (zoo.residual_cnn, {"QGemm": 1, "QLinearAdd": 2, "QLinearConv": 5, "QLinearGlobalAveragePool": 1}),
    "transformer": (zoo.transformer, {"MatMulIntegerToFloat": 12}),
}


@pytest.mark.parametrize("name", INTEGER)
def test_static_int8_is_fused_by_the_runtime(name):
    make, kernels = INTEGER[name]
    model = make()
    found = regions(run_passes(model, [FOLD, STATIC], zoo.random_inputs(model, rows=16, seed=0)))
    assert found.integer == kernels
    # In and out of the only region; of a transformer the input of each group of products.
    assert found.stray <= (12 if name == "transformer" else 2)


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_way_to_round_is_fused(rounding, per_channel):
    model = zoo.residual_cnn(blocks=1)
    params = {"rounding": rounding, "per_channel": per_channel, "bias_correction": True, "calibrator": "mse"}
    found = regions(run_passes(model, [FOLD, PassSpec("int8-static", params)], zoo.random_inputs(model, 8, seed=0)))
    assert found.integer["QLinearConv"] == 3 and found.stray <= 2


@pytest.mark.parametrize("name", ["int8-static", "int8-dynamic", "int8-nncf", "weight-only"])
def test_nodes_left_out_stay_in_float(name):
    model = zoo.mlp()
    shapes = [list(t.dims) for t in model.graph.initializer if len(t.dims) == 2]
    samples = zoo.random_inputs(model, rows=8, seed=0)
    first = model.graph.node[0].name
    both, one = (run_passes(model, [PassSpec(name, params)], samples) for params in ({}, {"exclude": [first]}))
    weights = [
        [t for t in after.graph.initializer if t.data_type == TensorProto.FLOAT and list(t.dims) in shapes]
        for after in (both, one)
    ]
    assert [len(left) for left in weights] == [0, 1]
    with pytest.raises(PassFailed, match=f"no node '{first}x' to leave out; did you mean '{first}'"):
        run_passes(model, [PassSpec(name, {"exclude": [first + "x"]})], samples)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"calibrator": "median"}, "no calibrator 'median'; there are minmax"),
        ({"rounding": "up"}, "no rounding 'up'"),
        ({"percentile": 0.99}, "above 50 and at most 100, not 0.99"),
    ],
)
def test_what_static_int8_does_not_know_is_refused_in_words(params, words):
    with pytest.raises(PassFailed, match=words):
        run_passes(zoo.mlp(), [PassSpec("int8-static", params)], zoo.random_inputs(zoo.mlp(), 4, seed=0))


@pytest.mark.parametrize(("bits", "least_db"), [(8, 35), (4, 14)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_alone_in_few_bits(bits, least_db, symmetric, tmp_path):
    model = zoo.mlp(hidden=256, inputs=128)
    after = run_passes(model, [PassSpec("weight-only", {"bits": bits, "symmetric": symmetric})])
    assert regions(after).integer == {"MatMulNBits": 2}
    assert after.ByteSize() < model.ByteSize() * (bits + 2) / 32
    inputs = zoo.random_inputs(model, rows=32, seed=1)
    assert sqnr(outputs_of(model, inputs, tmp_path)["y"], outputs_of(after, inputs, tmp_path)["y"]) > least_db


@pytest.mark.parametrize(("bits", "least_db"), [(8, 35), (4, 14)])
def test_weights_alone_for_openvino(bits, least_db, tmp_path):
    model = zoo.mlp(hidden=256, inputs=128)
    model.opset_import[0].version = 21
    after = run_passes(model, [PassSpec("weight-only", {"bits": bits, "runtime": "openvino"})])
    inputs = zoo.random_inputs(model, rows=32, seed=1)
    got = outputs_of(after, inputs, tmp_path, OpenVinoCpu)["y"]
    assert sqnr(outputs_of(model, inputs, tmp_path)["y"], got) > least_db


@pytest.mark.parametrize("params", [{"bits": 3}, {"block_size": 24}, {"runtime": "tflite"}])
def test_weight_only_refuses_what_no_kernel_has(params):
    with pytest.raises(PassFailed, match="weight-only: "):
        run_passes(zoo.mlp(), [PassSpec("weight-only", params)])


@pytest.mark.parametrize(
    "params", [{"preset": "performance"}, {"smooth_alpha": 0.5, "transformer": True}, {"bias_correction": False}]
)
def test_nncf_takes_its_parameters(params, tmp_path):
    model = zoo.mlp()
    after = run_passes(model, [PassSpec("int8-nncf", params)], zoo.random_inputs(model, rows=16, seed=0))
    inputs = zoo.random_inputs(model, rows=16, seed=1)
    assert sqnr(outputs_of(model, inputs, tmp_path)["y"], outputs_of(after, inputs, tmp_path)["y"]) > 15


def test_a_shared_weight_with_one_node_left_out_stays_exact_there(tmp_path):
    model = deep_gemm()
    model.graph.node.append(helper.make_node("Gemm", ["v", "w"], ["z"], name="again"))
    model.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 256]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 32]))
    inputs = {"x": correlated(64, 256, 1), "v": correlated(64, 256, 2)}
    after = run_passes(model, [PassSpec("int8-static", {"exclude": ["gemm"], "rounding": "gptq"})], inputs)
    expected, got = outputs_of(model, inputs, tmp_path), outputs_of(after, inputs, tmp_path)
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-4, atol=1e-3)
    assert 15 < sqnr(expected["z"], got["z"]) < 80

"""Quantizers help where they should, are fused by the runtime, and leave out what they are told to."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compilers.passes import PassFailed, run_passes
from compilers.passes.gptq import gptq
from compilers.passes.regions import regions
from compilers.proving import gate
from compilers.proving.compare import Comparison
from compilers.proving.gate import Finding
from compilers.recipe import PassSpec
from compilers.targets.openvino import OpenVinoCpu
from compilers.targets.ort import OrtCpu
from model_store.policy import Gate
from tests import zoo

FOLD = PassSpec("fold-batch-norm")
STATIC, DYNAMIC, SMOOTH = PassSpec("int8-static"), PassSpec("int8-dynamic"), PassSpec("smooth-quant")


def outputs_of(model, inputs, folder, target=OrtCpu):
    onnx.save(model, folder / "m.onnx")
    files = {"model.onnx": folder / "m.onnx"}
    if target is not OrtCpu:
        built = target().build(folder / "m.onnx", folder, {"precision": "int8", "inference_precision": "f32"})
        return target().open(built.files, built.options, threads=1).run(inputs)
    return target().open(files, {}, threads=1).run(inputs)


def sqnr(expected, got):
    return 20 * np.log10(np.linalg.norm(expected) / (np.linalg.norm(expected - got) or 1e-30))


def correlated(rows, width, seed):
    """Features as a Relu leaves them: a few causes mixed into many."""
    random = np.random.default_rng(7)
    mixing = random.standard_normal((width // 4, width)) / np.sqrt(width // 4)
    noise = np.random.default_rng(seed)
    causes = noise.standard_normal((rows, width // 4)) @ mixing
    return np.maximum(causes + 0.3 * noise.standard_normal((rows, width)), 0).astype(np.float32)


@pytest.fixture(scope="module")
def outliers():
    model = zoo.outliers()
    return model, zoo.random_inputs(model, rows=48, seed=1), zoo.random_inputs(model, rows=100, seed=2)


def judged(model, specs, calibration, inputs, folder):
    after = run_passes(model, specs, calibration)
    comparison = Comparison(rowwise=True)
    expected, got = outputs_of(model, inputs, folder), outputs_of(after, inputs, folder)
    comparison.add(expected, got, list(range(len(inputs["features"]))), {})
    agreement = comparison.agreement()
    return gate.judge(agreement, gate.bounds_for("int8", Gate(), lossless=False)).finding, agreement.sqnr_db


@pytest.mark.parametrize("quantize", [STATIC, DYNAMIC], ids=lambda spec: spec.name)
def test_a_model_with_outlier_channels_fails_the_gate_and_smoothing_saves_it(quantize, outliers, tmp_path):
    model, calibration, inputs = outliers
    plain, lost = judged(model, [quantize], calibration, inputs, tmp_path)
    smooth, kept = judged(model, [SMOOTH, quantize], calibration, inputs, tmp_path)
    assert plain is Finding.FAILED and lost < 10
    assert smooth is Finding.PASSED and kept > lost + 20


@pytest.mark.parametrize("calibrator", ["minmax", "moving-average", "percentile", "entropy", "mse"])
def test_every_calibrator_passes_the_gate_once_smoothed(calibrator, outliers, tmp_path):
    model, calibration, inputs = outliers
    specs = [SMOOTH, PassSpec("int8-static", {"calibrator": calibrator})]
    assert judged(model, specs, calibration, inputs, tmp_path)[0] is Finding.PASSED


def test_smoothing_folds_into_the_norm_and_costs_no_node(outliers):
    model, calibration, _ = outliers
    after = run_passes(model, [SMOOTH], calibration)
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in model.graph.node]
    assert sum(len(t.raw_data) for t in after.graph.initializer) == sum(
        len(t.raw_data) for t in model.graph.initializer
    )


def test_smoothing_puts_a_factor_in_front_where_nothing_takes_it_in(tmp_path):
    model = zoo.transformer()  # a residual reads every norm's answer, too
    samples = zoo.random_inputs(model, rows=8, seed=0)
    after = run_passes(model, [SMOOTH], samples)
    added = [node for node in after.graph.node if node.op_type == "Mul" and node.name.endswith(".smooth")]
    assert added
    inputs = zoo.random_inputs(model, rows=4, seed=3)
    before, now = outputs_of(model, inputs, tmp_path), outputs_of(after, inputs, tmp_path)
    assert sqnr(before["hidden"], now["hidden"]) > 100


def test_convolutions_are_smoothed_where_it_costs_nothing(tmp_path):
    random = np.random.default_rng(0)
    loud = np.where(np.arange(8) < 2, 50.0, 1.0)
    first = random.standard_normal((8, 3, 3, 3)) * loud[:, None, None, None]
    second = random.standard_normal((4, 8, 3, 3)) / loud[None, :, None, None]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "a"], ["h"], name="first", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("Conv", ["r", "b"], ["y"], name="second", pads=[1, 1, 1, 1]),
        ],
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 8, 8])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in (("a", first), ("b", second))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    samples, inputs = zoo.random_inputs(model, 16, seed=0), zoo.random_inputs(model, 8, seed=1)
    expected = outputs_of(model, inputs, tmp_path)["y"]
    smooth = PassSpec("smooth-quant", {"convolutions": True})
    even = run_passes(model, [smooth], samples)
    assert [node.op_type for node in even.graph.node] == ["Conv", "Relu", "Conv"]
    assert sqnr(expected, outputs_of(even, inputs, tmp_path)["y"]) > 100
    plain, better = (
        sqnr(expected, outputs_of(run_passes(model, specs, samples), inputs, tmp_path)["y"])
        for specs in ([STATIC], [smooth, STATIC])
    )
    assert better > plain + 6


def test_rounding_by_the_gram_matrix_beats_the_nearest_where_inputs_are_correlated():
    weight = np.random.default_rng(0).standard_normal((256, 256)) / 16
    seen, held_out = correlated(1024, 256, 1), correlated(512, 256, 2)
    scale = np.abs(weight).max(axis=1) / 7  # 4 bits
    nearest = np.clip(np.rint(weight / scale[:, None]), -7, 7) * scale[:, None]
    better = gptq(weight, seen.T @ seen, scale[:, None], -7, 7) * scale[:, None]
    expected = held_out @ weight.T
    assert np.abs(better / scale[:, None] - np.rint(better / scale[:, None])).max() < 1e-9
    assert sqnr(expected, held_out @ better.T) > sqnr(expected, held_out @ nearest.T) + 3


def test_rounding_by_a_diagonal_gram_matrix_is_rounding_to_the_nearest():
    weight = np.random.default_rng(0).standard_normal((8, 16))
    scale = np.abs(weight).max(axis=1) / 127
    got = gptq(weight, np.diag(np.arange(1.0, 17.0)), scale[:, None], -127, 127)
    np.testing.assert_array_equal(got, np.rint(weight / scale[:, None]))


def test_rounding_refuses_matrices_that_do_not_fit():
    with pytest.raises(ValueError, match="does not fit gram"):
        gptq(np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 1)), -127, 127)
    with pytest.raises(ValueError, match="bounds do not fit"):
        gptq(np.ones((2, 3)), np.ones((3, 3)), np.ones((4, 1)), -127, 127)


def test_rounding_is_what_its_paper_says_an_input_at_a_time():
    """Frantar et al. 2023, algorithm 1, by the inverse of H: longer, and the same codes."""
    random = np.random.default_rng(5)
    weight, seen = random.standard_normal((12, 200)), correlated(900, 200, 1).astype(np.float64)
    gram, step = seen.T @ seen, np.abs(weight).max(axis=1, keepdims=True) / 7
    order = np.argsort(-np.diagonal(gram), kind="stable")
    work, damped = weight[:, order].copy(), gram[np.ix_(order, order)].copy()
    damped[np.diag_indices(200)] += 0.01 * np.diagonal(gram).mean()
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    codes = np.empty_like(work)
    for j in range(200):
        codes[:, j] = np.clip(np.rint(work[:, j] / step[:, 0]), -7, 7)
        work[:, j + 1 :] -= np.outer((work[:, j] - codes[:, j] * step[:, 0]) / upper[j, j], upper[j, j + 1 :])
    got = gptq(weight, gram, step, -7, 7)
    assert (got[:, order] == codes).mean() > 0.999


@pytest.mark.parametrize("params", [{"bits": 4}, {"bits": 4, "symmetric": False}, {"bits": 8}], ids=str)
def test_weights_alone_rounded_by_their_inputs_lose_less(params, tmp_path):
    model, held_out = deep_gemm(inputs=250), correlated(256, 256, 2)[:, :250]  # no whole number of blocks
    samples = {"x": correlated(1024, 256, 1)[:, :250].copy()}
    expected, kept = outputs_of(model, {"x": held_out}, tmp_path)["y"], []
    for rounding in ("nearest", "gptq"):
        after = run_passes(model, [PassSpec("weight-only", {"rounding": rounding, **params})], samples)
        kept.append(sqnr(expected, outputs_of(after, {"x": held_out}, tmp_path)["y"]))
    # In 8 bits what the kernel makes of the activations is most of the error.
    assert kept[1] > kept[0] + (2 if params["bits"] == 4 else -0.1)


def test_weights_alone_are_rounded_by_inputs_only_where_that_can_be():
    for params, why in (({"runtime": "openvino"}, "for onnxruntime"), ({"rounding": "best"}, "no rounding 'best'")):
        with pytest.raises(PassFailed, match=why):
            run_passes(deep_gemm(), [PassSpec("weight-only", {"rounding": "gptq", **params})], {"x": np.ones((4, 256))})
    with pytest.raises(PassFailed, match="needs calibration samples"):
        run_passes(deep_gemm(), [PassSpec("weight-only", {"rounding": "gptq"})])


def deep_gemm(outputs=32, inputs=256):
    random = np.random.default_rng(0)
    weight = (random.standard_normal((inputs, outputs)) / 16).astype(np.float32)
    weight[0] = 4.0  # makes the steps coarse
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm")],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(outputs, np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


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


def test_gptq_weights_reach_the_runtime_as_they_were_rounded(tmp_path):
    model, x = deep_gemm(), correlated(512, 256, 1)
    errors = []
    expected = outputs_of(model, {"x": correlated(256, 256, 2)}, tmp_path)["y"]
    for rounding in ("nearest", "gptq"):
        spec = PassSpec("int8-static", {"rounding": rounding, "regions": False})
        got = outputs_of(run_passes(model, [spec], {"x": x}), {"x": correlated(256, 256, 2)}, tmp_path)["y"]
        errors.append(sqnr(expected, got))
    assert errors[1] > errors[0] + 1


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

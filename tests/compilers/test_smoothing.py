"""Smoothing moves outliers of activations into weights: it costs nothing, and saves int8 from failing the gate."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compilers.passes import run_passes
from compilers.proving import gate
from compilers.proving.compare import Comparison
from compilers.proving.gate import Finding
from compilers.recipe import PassSpec
from model_store.policy import Gate
from tests import zoo
from tests.compilers.quantized import outputs_of, sqnr

STATIC, DYNAMIC, SMOOTH = PassSpec("int8-static"), PassSpec("int8-dynamic"), PassSpec("smooth-quant")


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

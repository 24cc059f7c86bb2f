"""Statistics of a model over samples: what they say, and that chunks and matrices of inputs are right."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from compilers.calibration.calibrate import calibrate, calibrated, float_tensors
from compilers.calibration.observe import Observed, chunks
from compilers.calibration.products import Patches, Rows, products
from compilers.calibration.statistics import Statistics
from compilers.passes.shapes import with_shapes
from compilers.targets.ort import OrtCpu
from tests import zoo


def typed(model):
    return ir.from_proto(with_shapes(model))


def statistics(model, samples, path, **options):
    calibrate(typed(model), samples, path / "statistics.npz", **options)
    return Statistics(path / "statistics.npz")


def conv(channels=6, outputs=4, **attributes):
    group = attributes.get("group", 1)
    weight = np.random.default_rng(0).standard_normal((outputs, channels // group, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, 9, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model, inputs, path):
    onnx.save(model, path / "m.onnx")
    return OrtCpu().open({"model.onnx": path / "m.onnx"}, {}, threads=1).run(inputs)


CONVS = {
    "plain": {},
    "padded": {"pads": [1, 0, 2, 1]},
    "strided": {"strides": [2, 3], "pads": [1, 1, 1, 1]},
    "dilated": {"dilations": [2, 1]},
    "grouped": {"group": 2, "pads": [1, 1, 1, 1]},
    "depthwise": {"group": 6, "outputs": 6},
    "same-upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "same-lower": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    "valid": {"auto_pad": "VALID"},
}


@pytest.mark.parametrize("case", CONVS)
def test_patches_times_the_weight_are_the_convolution(case, tmp_path):
    model = conv(**CONVS[case])
    x = np.random.default_rng(1).standard_normal((2, 6, 9, 7)).astype(np.float32)
    (product,) = products(ir.from_proto(model))
    matrix = product.matrix(numpy_helper.to_array(model.graph.initializer[0]))
    rows = np.concatenate(list(product.view.chunks(x)), axis=1)
    got = (rows @ matrix.transpose(0, 2, 1)).transpose(0, 2, 1).reshape(len(matrix) * matrix.shape[1], 2, -1)
    expected = run(model, {"x": x}, tmp_path)["y"]
    np.testing.assert_allclose(got.transpose(1, 0, 2), expected.reshape(2, expected.shape[1], -1), rtol=1e-4, atol=1e-4)
    total, count = product.view.sums(x)
    assert count == rows.shape[1]
    np.testing.assert_allclose(total, rows.sum(axis=1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("attributes", [{}, {"transA": 1}, {"transB": 1}, {"transA": 1, "transB": 1}])
def test_rows_times_the_weight_are_the_product(attributes):
    random = np.random.default_rng(0)
    a, b = random.standard_normal((5, 4)).astype(np.float32), random.standard_normal((4, 3)).astype(np.float32)
    stored = np.ascontiguousarray(b.T if attributes.get("transB") else b)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], **attributes)],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(stored, "w")],
    )
    (product,) = products(ir.from_proto(helper.make_model(graph)))
    (rows,) = product.view.chunks(a.T if attributes.get("transA") else a)
    np.testing.assert_allclose(rows[0] @ product.matrix(stored)[0].T, a @ b, rtol=1e-5)
    np.testing.assert_array_equal(product.weight_of(product.matrix(stored), stored.shape), stored)


def test_products_that_have_no_weight_are_none():
    found = products(typed(zoo.transformer(layers=1)))
    assert len(found) == 6 and {product.kind for product in found} == {"MatMul"}


def test_one_pass_tells_ranges_means_and_gram_matrices(tmp_path):
    model, x = zoo.mlp(), np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32) + 0.5
    seen = statistics(model, {"x": x}, tmp_path, grams=True)
    assert seen.tensors["x"].low == x.min() and seen.tensors["x"].high == x.max()
    hidden = run(_with_output(model, "relu_1"), {"x": x}, tmp_path)["relu_1"]
    assert seen.tensors["relu_1"].high == pytest.approx(hidden.max(), rel=1e-5)
    for tensor, values in (("x", x), ("relu_1", hidden)):
        view = Rows(tensor, values.shape[1])
        product = seen.product(view)
        assert product.rows == 50
        np.testing.assert_allclose(product.mean[0], values.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(product.absmax, np.abs(values).max(axis=0), rtol=1e-5)
        np.testing.assert_allclose(seen.gram(view)[0], values.T @ values, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("make", [zoo.transformer, zoo.residual_cnn, zoo.outliers], ids=lambda make: make.__name__)
def test_chunks_change_nothing_but_how_often_the_model_runs(make, tmp_path):
    model = make()
    samples = zoo.random_inputs(model, rows=10, seed=0)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = statistics(model, samples, tmp_path / "a")
    parted = statistics(model, samples, tmp_path / "b", budget_bytes=100_000)
    assert list(whole.tensors) == list(parted.tensors)
    for name, seen in whole.tensors.items():
        assert parted.tensors[name].low == pytest.approx(seen.low, rel=1e-4, abs=1e-5)
        assert parted.tensors[name].high == pytest.approx(seen.high, rel=1e-4, abs=1e-5)
        assert parted.tensors[name].mean_low == pytest.approx(seen.mean_low, rel=1e-4, abs=1e-5)
        assert parted.tensors[name].mean_high == pytest.approx(seen.mean_high, rel=1e-4, abs=1e-5)
        assert parted.tensors[name].counts.sum() == seen.counts.sum()


def test_runs_take_fewer_samples_where_that_makes_fewer_chunks(tmp_path, monkeypatch):
    model = zoo.residual_cnn()
    samples = zoo.random_inputs(model, rows=8, seed=0)
    asked = []
    real = Observed.runs

    def runs(observed, tensors, feeds):
        fed = list(feeds)
        asked.append((len(tensors), len(fed)))
        return real(observed, tensors, iter(fed))

    monkeypatch.setattr(Observed, "runs", runs)
    whole = sum(statistics_bytes(model, samples, tmp_path).values())
    for budget, fed in ((8 * whole, 1), (4 * whole, 2), (whole, 8)):
        asked.clear()
        seen = statistics(model, samples, tmp_path, budget_bytes=budget)
        assert asked == [(len(seen.tensors), fed)]


def statistics_bytes(model, samples, path):
    """Of each float activation on one sample."""
    observed = Observed(ir.to_proto(typed(model)), path)
    return observed.sizes(float_tensors(typed(model)), {name: array[:1] for name, array in samples.items()})


def test_chunks_hold_what_fits_and_keep_the_order():
    assert list(chunks({"a": 4, "b": 4, "c": 9, "d": 1}, 8)) == [["a", "b"], ["c"], ["d"]]


def test_only_the_part_that_leads_to_the_tensors_runs(tmp_path):
    model = zoo.transformer(layers=1)
    inputs = zoo.random_inputs(model, rows=2, seed=0)
    observed = Observed(model, tmp_path)
    (values,) = observed.runs(["gather_0"], iter([inputs]))
    assert values["gather_0"].shape == (2, 8, 64)
    assert len(onnx.load(tmp_path / "part.onnx", load_external_data=False).graph.node) == 1


def test_statistics_lack_nothing_that_is_asked_for_and_look_up_only_that(tmp_path):
    model, samples = typed(zoo.mlp()), zoo.random_inputs(zoo.mlp(), rows=8, seed=0)
    given = statistics(zoo.mlp(), samples, tmp_path, tensors=["x"])
    assert set(given.tensors) == {"x"}
    with calibrated(model, samples, given, tensors=["x"]) as seen:
        assert seen is given
    with calibrated(model, samples, given, tensors=["x", "relu_1"], grams=True) as seen:
        assert {"x", "relu_1"} <= set(seen.tensors)
        assert seen.gram(Rows("x", 64)) is not None and given.gram(Rows("x", 64)) is None
        assert seen.product(Patches("x", 9, (3,), (1,), (0, 0), (1,), 1)) is None


def test_an_input_without_samples_is_named(tmp_path):
    with pytest.raises(ValueError, match="attention_mask"):
        statistics(zoo.transformer(), {"input_ids": np.zeros((2, 4), np.int64)}, tmp_path)


def test_only_float_activations_are_looked_at():
    names = float_tensors(typed(zoo.transformer(layers=1)))
    assert "input_ids" not in names and not any(name.startswith("weight_") for name in names)


def _with_output(model, name):
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model

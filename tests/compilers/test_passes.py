"""What is particular to one pass."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from compilers.calibration.feeds import feeds
from compilers.passes import PassFailed, UnknownPass, load_pass, run_passes, source_digest
from compilers.passes.graph import attends, parameters
from compilers.recipe import PassSpec
from compilers.targets.ort import OrtCpu
from tests import zoo

FOLD = [PassSpec("fold-batch-norm")]


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def outputs_of(model, inputs, tmp_path):
    onnx.save(model, tmp_path / "m.onnx")
    return OrtCpu().open({"model.onnx": tmp_path / "m.onnx"}, {}, threads=1).run(inputs)


def normalised(producer: str, *, bias: bool = True, training: bool = False, shared: bool = False, **attributes):
    """x -> producer -> BatchNormalization -> y, with figures far from one; `shared`: h, between them, is an output."""
    random = np.random.default_rng(0)
    shapes = {"Conv": (6, 2, 3, 3), "ConvTranspose": (4, 3, 3, 3), "Gemm": (4, 6)}
    weights = {
        "w": random.standard_normal(shapes[producer]),
        "b": random.standard_normal(6),
        "scale": random.uniform(0.5, 2, 6),
        "shift": random.standard_normal(6),
        "mean": random.standard_normal(6),
        "variance": random.uniform(0.1, 3, 6),
    }
    if attributes.get("transB"):
        weights["w"] = weights["w"].T
    shape = ["N", 4] if producer == "Gemm" else ["N", 4, 5, 5]
    nodes = [
        helper.make_node(producer, ["x", "w", "b"] if bias else ["x", "w"], ["h"], **attributes),
        helper.make_node(
            "BatchNormalization", ["h", "scale", "shift", "mean", "variance"], ["y"], epsilon=1e-3,
            **({"training_mode": 1} if training else {}),
        ),
    ]  # fmt: skip
    if training:
        nodes[1].output.extend(["mean_out", "variance_out"])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (["y", "h"] if shared else ["y"])
    ]
    graph = helper.make_graph(
        nodes,
        "normalised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "model",
    [
        normalised("Conv", group=2),
        normalised("Conv", bias=False, group=2),
        normalised("ConvTranspose", group=2),
        normalised("Gemm"),
        normalised("Gemm", transB=1, alpha=0.5, beta=2.0),
        normalised("Gemm", bias=False),
    ],
    ids=["conv", "conv-no-bias", "conv-transpose-groups", "gemm", "gemm-attributes", "gemm-no-bias"],
)
def test_batch_norm_folds_into_its_producer(model, tmp_path):
    folded = run_passes(model, FOLD)
    assert kinds(folded) == [model.graph.node[0].op_type]
    x = np.random.default_rng(1).standard_normal((3, 4) if "Gemm" in kinds(model) else (3, 4, 5, 5), dtype=np.float32)
    before, after = outputs_of(model, {"x": x}, tmp_path)["y"], outputs_of(folded, {"x": x}, tmp_path)["y"]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_batch_norm_stays_where_its_producer_feeds_another():
    model = normalised("Conv", group=2, shared=True)
    assert kinds(run_passes(model, FOLD)) == kinds(model)


def test_batch_norm_stays_while_it_trains():
    model = normalised("Conv", group=2, training=True)
    assert kinds(run_passes(model, FOLD)) == kinds(model)


def test_folding_leaves_a_shared_weight_to_its_other_users(tmp_path):
    model = normalised("Gemm")
    model.graph.node.append(helper.make_node("Gemm", ["x", "w"], ["plain"]))
    model.graph.output.append(helper.make_tensor_value_info("plain", TensorProto.FLOAT, None))
    x = np.ones((2, 4), np.float32)
    folded = run_passes(model, FOLD)
    assert sorted(kinds(folded)) == ["Gemm", "Gemm"]
    np.testing.assert_allclose(
        outputs_of(folded, {"x": x}, tmp_path)["plain"], outputs_of(model, {"x": x}, tmp_path)["plain"], rtol=1e-6
    )


TIDY = [PassSpec("clean-up"), PassSpec("fold-constants"), PassSpec("fold-batch-norm")]
MODELS = [
    zoo.mlp, zoo.transformer, zoo.residual_cnn, zoo.multi_io, zoo.strings, zoo.scalar_output, zoo.fixed_batch,
    zoo.batch_mixing, zoo.simple,
]  # fmt: skip


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_tidying_keeps_every_kind_of_model_what_it_was(make, tmp_path):
    model = make()
    tidy = run_passes(model, TIDY)
    inputs = zoo.random_inputs(model, rows=2, seed=0)
    before, after = outputs_of(model, inputs, tmp_path), outputs_of(tidy, inputs, tmp_path)
    assert [output.name for output in tidy.graph.output] == list(before)
    assert [value.name for value in tidy.graph.input] == [value.name for value in model.graph.input]
    for name, array in before.items():
        if array.dtype == object:
            assert array.tolist() == after[name].tolist()
        else:
            np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("quantize", ["int8-static", "int8-nncf"])
@pytest.mark.parametrize("make", [zoo.transformer, zoo.mlp], ids=lambda make: make.__name__)
def test_calibrated_int8_takes_masks_and_plain_inputs(make, quantize, tmp_path, capfd):
    model = make()
    after = run_passes(model, [*TIDY, PassSpec(quantize)], zoo.random_inputs(model, rows=12, seed=0))
    assert capfd.readouterr().out == ""
    assert "QuantizeLinear" in kinds(after)
    inputs = zoo.random_inputs(model, rows=5, seed=1)
    for name, array in outputs_of(model, inputs, tmp_path).items():
        noise = np.linalg.norm(array - outputs_of(after, inputs, tmp_path)[name])
        assert 20 * np.log10(np.linalg.norm(array) / noise) > 15


def test_dynamic_int8_never_touches_convolutions():
    model = run_passes(zoo.residual_cnn(), [PassSpec("int8-dynamic")])
    assert "ConvInteger" not in kinds(model) and "MatMulInteger" in kinds(model)


def test_int8_without_samples_is_refused_in_words():
    with pytest.raises(PassFailed, match="int8-static: needs calibration samples"):
        run_passes(zoo.mlp(), [PassSpec("int8-static")])


def test_a_model_with_nothing_to_quantize_is_refused_in_words():
    with pytest.raises(PassFailed, match="int8-dynamic: nothing to quantize"):
        run_passes(zoo.simple(), [PassSpec("int8-dynamic")])


@pytest.mark.parametrize("quantize", ["int8-static", "int8-nncf"])
def test_an_old_opset_is_raised_before_quantizing(quantize, tmp_path):
    model = zoo.mlp()
    model.opset_import[0].version = 11
    after = run_passes(model, [PassSpec("raise-opset"), PassSpec(quantize)], zoo.random_inputs(model, rows=8, seed=0))
    assert after.opset_import[0].version >= 13 and "DequantizeLinear" in kinds(after)
    outputs_of(after, zoo.random_inputs(model, rows=2, seed=1), tmp_path)


@pytest.mark.parametrize("quantize", ["int8-dynamic", "int8-static", "int8-nncf"])
def test_half_precision_weights_are_refused_in_words(quantize):
    model = zoo.mlp()
    for weight in model.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(PassFailed, match="float32 weights, the model's are FLOAT16"):
        run_passes(model, [PassSpec(quantize)], zoo.random_inputs(model, rows=4, seed=0))


def test_products_without_weights_are_told_from_quantized_ones():
    x = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4, 4]) for name in "aby"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "product", x[:2], x[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(PassFailed, match="int8-dynamic: nothing was quantized"):
        run_passes(model, [PassSpec("int8-dynamic")])


def test_run_passes_leaves_the_model_it_was_given():
    model = zoo.residual_cnn()
    before = model.SerializeToString(deterministic=True)
    run_passes(model, TIDY)
    assert model.SerializeToString(deterministic=True) == before


def test_an_unknown_pass_is_answered_with_the_nearest():
    with pytest.raises(UnknownPass, match="did you mean 'fold-batch-norm'"):
        load_pass(PassSpec("fold-batchnorm"))


def test_an_unknown_parameter_is_a_failure_that_names_pass_and_parameter():
    with pytest.raises(PassFailed, match=r"int8-dynamic: .*per_chanel"):
        load_pass(PassSpec("int8-dynamic", {"per_chanel": True}))


def test_every_pass_has_a_source_digest_of_its_own():
    names = ["clean-up", "fold-batch-norm", "int8-static"]
    assert len({source_digest(name) for name in names}) == len(names)


def test_the_table_loads_nothing_heavy():
    code = (
        "import sys, compilers.passes, compilers.recipe\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'onnx', 'onnx_ir', 'onnxruntime', 'nncf'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_weights_count_the_same_however_they_are_stored():
    model = zoo.mlp(hidden=128, inputs=64, outputs=10)
    plain = 64 * 128 + 128 + 128 * 10 + 10
    calibration = zoo.random_inputs(model, rows=8, seed=0)
    assert parameters(model) == plain
    assert parameters(run_passes(model, [PassSpec("int8-dynamic")])) == plain
    assert parameters(run_passes(model, [PassSpec("int8-nncf")], calibration)) == plain


def test_only_what_attends_is_a_transformer():
    assert attends(ir.from_proto(zoo.transformer()))
    assert not attends(ir.from_proto(zoo.residual_cnn())) and not attends(ir.from_proto(zoo.mlp()))


def test_calibration_streams_a_few_rows_at_a_time():
    x = np.arange(20 * 64, dtype=np.float32).reshape(20, 64)
    runs = list(feeds(ir.from_proto(zoo.mlp()), {"x": x}, rows=8))
    assert [len(run["x"]) for run in runs] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate([run["x"] for run in runs]), x)


def test_calibration_of_a_fixed_batch_takes_as_many_entries_as_it_says():
    x = np.arange(5 * 4, dtype=np.float32).reshape(5, 4)
    runs = list(feeds(ir.from_proto(zoo.fixed_batch()), {"x": x}))
    assert [run["x"].tolist() for run in runs] == [x[:2].tolist(), x[2:4].tolist()]


def test_calibration_of_an_input_without_the_axis_of_samples_takes_one_whole_entry():
    runs = list(feeds(ir.from_proto(zoo.fixed_batch()), {"x": np.zeros((3, 2, 4), np.float32)}))
    assert [run["x"].shape for run in runs] == [(2, 4)] * 3


def test_calibration_names_the_input_it_lacks():
    with pytest.raises(ValueError, match="INPUT1"):
        list(feeds(ir.from_proto(zoo.simple()), {"INPUT0": np.zeros((1, 16), np.int32)}))

"""The zoo itself: every model is valid ONNX and runs, or every test that leans on it proves nothing."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
import pytest

from tests import zoo

MODELS = {
    "mlp": zoo.mlp,
    "transformer": zoo.transformer,
    "outliers": zoo.outliers,
    "residual_cnn": zoo.residual_cnn,
    "multi_io": zoo.multi_io,
    "strings": zoo.strings,
    "scalar_output": zoo.scalar_output,
    "fixed_batch": zoo.fixed_batch,
    "batch_mixing": zoo.batch_mixing,
    "big": lambda: zoo.big(8),
    "simple": zoo.simple,
    "simple_int8": zoo.simple_int8,
    "slow": zoo.slow,
    "identity": lambda: zoo.identity(onnx.TensorProto.FLOAT16),
}


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("name", MODELS)
def test_model_is_valid_seeded_and_runs(name: str) -> None:
    model = MODELS[name]()
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString() == MODELS[name]().SerializeToString()
    outputs = run(model, zoo.random_inputs(model, rows=2, seed=1))
    for value, declared in zip(outputs, model.graph.output, strict=True):
        assert len(np.shape(value)) == len(declared.type.tensor_type.shape.dim)
        assert np.asarray(value).dtype.kind == "O" or np.isfinite(value).all()


def test_rows_are_independent_but_for_the_mixing_model() -> None:
    for name in ("mlp", "transformer", "residual_cnn", "batch_mixing"):
        model = MODELS[name]()
        inputs = zoo.random_inputs(model, rows=3, seed=2)
        together = run(model, inputs)[0][:1]
        alone = run(model, {key: value[:1] for key, value in inputs.items()})[0]
        assert np.allclose(together, alone, atol=1e-4) == (name != "batch_mixing")


def test_padding_does_not_change_the_real_tokens() -> None:
    model = zoo.transformer()
    inputs = zoo.random_inputs(model, rows=2, seed=3)
    inputs["attention_mask"][:] = np.arange(8) < 5
    changed = {**inputs, "input_ids": np.where(inputs["attention_mask"] == 1, inputs["input_ids"], 42)}
    assert np.allclose(run(model, inputs)[0][:, :5], run(model, changed)[0][:, :5], atol=1e-4)


def test_big_has_the_size_asked_for() -> None:
    assert len(zoo.big(16).SerializeToString()) == pytest.approx(16 * 2**20, rel=0.01)


def test_text_sums_are_sums() -> None:
    inputs = {name: np.array([["7", "-3"] * 8]) for name in ("INPUT0", "INPUT1")}
    total, difference = run(zoo.simple_string(), inputs)
    assert (total.tolist(), difference.tolist()) == ([["14", "-6"] * 8], [["0"] * 16])

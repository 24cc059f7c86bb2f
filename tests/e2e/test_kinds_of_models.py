"""Models of every kind through the whole product: what the endpoint answers is what ONNX Runtime answers directly."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest

from gateway.client import BadRequest, Client
from gateway.demo.asking import first_answer
from gateway.demo.process import GatewayProcess
from tests import zoo

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(180)]

MODELS = {
    "mlp": zoo.mlp(),
    "transformer": zoo.transformer(),
    "residual-cnn": zoo.residual_cnn(),
    "multi-io": zoo.multi_io(),
    "strings": zoo.strings(),
    "scalar-output": zoo.scalar_output(),
    "fixed-batch": zoo.fixed_batch(),
    "batch-mixing": zoo.batch_mixing(),
    "simple": zoo.simple(),
}
LITTLE = {"targets": ["ort-cpu"], "techniques": ["fusion"], "rows": [1], "budget_seconds": 60}
"""Policy: this is about answers, so little is compiled, and timed for a second."""


def directly(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    fed = {name: np.array(text(value)) if value.dtype == object else value for name, value in inputs.items()}
    outputs = session.run(None, fed)
    return {output.name: np.asarray(value) for output, value in zip(session.get_outputs(), outputs, strict=True)}


def text(values: np.ndarray) -> Any:
    return [item.decode() if isinstance(item, bytes) else str(item) for item in values.ravel().tolist()]


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    if expected.dtype.kind in "OSU":
        assert text(got) == text(expected)
    else:
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A gateway with every model of the zoo registered and answering."""
    folder = tmp_path_factory.mktemp("kinds")
    with GatewayProcess(folder / "data") as gateway, Client(gateway.url) as client:
        for name, model in MODELS.items():
            client.register(name, model.SerializeToString(), policy=LITTLE)
        for name, model in MODELS.items():
            first_answer(gateway.url, name, zoo.random_inputs(model, rows=2))
        yield client


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_the_bare_runtime(client: Client, name: str, rows: int) -> None:
    if name == "fixed-batch":
        rows = 2
    inputs = zoo.random_inputs(MODELS[name], rows=rows, seed=rows)
    answer = client.predict(name, inputs)
    expected = directly(MODELS[name], inputs)
    assert set(answer) == set(expected)
    for output, value in expected.items():
        same(answer[output], value)


def test_sequence_length_is_free(client: Client) -> None:
    for length in (1, 3, 64):
        inputs = zoo.random_inputs(MODELS["transformer"], rows=2, seed=length, dynamic=length)
        same(client.predict("transformer", inputs)["hidden"], directly(MODELS["transformer"], inputs)["hidden"])


def test_inputs_of_unlike_rows_are_answered_as_the_bare_runtime_does(client: Client) -> None:
    inputs = {"a": np.full((1, 4), 2, np.float32), "b": np.arange(8, dtype=np.int32).reshape(2, 4)}
    same(client.predict("multi-io", inputs)["sum"], directly(MODELS["multi-io"], inputs)["sum"])


def test_json_speaks_the_same_numbers_as_binary(client: Client) -> None:
    inputs = zoo.random_inputs(MODELS["multi-io"], rows=3, seed=4)
    expected = directly(MODELS["multi-io"], inputs)
    body = {
        "id": "seven",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [3, 4], "data": inputs["a"].tolist()},
            {"name": "b", "datatype": "INT32", "shape": [3, 4], "data": inputs["b"].ravel().tolist()},
        ],
    }
    answer = httpx.post(f"{client.url}/v2/models/multi-io/infer", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["forgeway-variant"]
    assert answer.headers["server-timing"]
    assert (answer.json()["id"], answer.json()["model_version"]) == ("seven", "1")
    for output in answer.json()["outputs"]:
        got = np.array(output["data"], np.float32).reshape(output["shape"])
        same(got, expected[output["name"]])


def test_v1_predict_speaks_the_same_numbers(client: Client) -> None:
    inputs = zoo.random_inputs(MODELS["mlp"], rows=2, seed=5)
    body = {"instances": inputs["x"].tolist()}
    answer = httpx.post(f"{client.url}/v1/models/mlp:predict", json=body)
    assert answer.status_code == 200, answer.text
    same(np.array(answer.json()["predictions"], np.float32), directly(MODELS["mlp"], inputs)["y"])


@pytest.mark.parametrize(
    ("name", "inputs", "said"),
    [
        ("mlp", {"x": np.zeros((1, 63), np.float32)}, "64"),
        ("mlp", {"x": np.zeros((1, 64), np.int32)}, "FP32"),
        ("mlp", {"y": np.zeros((1, 64), np.float32)}, "x"),
        ("multi-io", {"a": np.zeros((1, 4), np.float32)}, "2"),
        ("fixed-batch", {"x": np.zeros((3, 4), np.float32)}, "2"),
    ],
)
def test_bad_request_is_refused_in_words(client: Client, name: str, inputs: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        client.predict(name, inputs)
    assert refused.value.status == 400
    assert said in str(refused.value)

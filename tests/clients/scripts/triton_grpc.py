"""tritonclient.grpc, against the models of tests/clients/models.py: every method that asks; see triton_managing.py and
triton_shared_memory.py for the others."""

import queue
import threading
import time
from functools import partial

import ml_dtypes
import numpy as np
import pytest
import simple
import tritonclient.grpc as grpc
from simple import check
from tritonclient.utils import InferenceServerException

given = partial(simple.given, grpc)


@pytest.fixture(scope="module")
def client(grpc_address):
    with grpc.InferenceServerClient(grpc_address) as client:
        yield client


def slowly(turns):
    x = grpc.InferInput("x", [1, 4], "FP32").set_data_from_numpy(np.ones((1, 4), np.float32))
    return [x, grpc.InferInput("turns", [1, 1], "INT64").set_data_from_numpy(np.array([[turns]]))]


def refused(ask, status, words):
    with pytest.raises(InferenceServerException) as caught:
        ask()
    assert caught.value.status() == f"StatusCode.{status}", caught.value
    assert words in caught.value.message()


def test_health(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    assert client.is_server_live(headers={"test": "1"}, client_timeout=10)


def test_server_metadata(client):
    facts = client.get_server_metadata()
    assert facts.name == "triton" and "statistics" in facts.extensions
    assert client.get_server_metadata(as_json=True)["name"] == "triton"


def test_model_metadata(client):
    for version in ("", "1"):
        facts = client.get_model_metadata("simple", version)
        assert (facts.name, list(facts.versions)) == ("simple", ["1"])
        assert [(spec.name, spec.datatype, list(spec.shape)) for spec in facts.inputs] == [
            ("INPUT0", "INT32", [-1, 16]),
            ("INPUT1", "INT32", [-1, 16]),
        ]


def test_words_about_what_is_missing(client, numbers):
    for ask in (client.get_model_metadata, client.get_model_config, lambda name: client.infer(name, given(numbers))):
        refused(lambda ask=ask: ask("nobody"), "NOT_FOUND", "Request for unknown model: 'nobody' is not found")
    refused(
        lambda: client.infer("simple", given(numbers), model_version="9"),
        "NOT_FOUND",
        "Request for unknown model: 'simple' version 9 is not found",
    )


def test_config(client):
    config = client.get_model_config("simple").config
    assert config.name == "simple" and config.max_batch_size >= 8
    assert [(spec.name, list(spec.dims)) for spec in config.input] == [("INPUT0", [16]), ("INPUT1", [16])]
    as_json = client.get_model_config("simple", as_json=True)["config"]
    assert as_json["input"][0]["data_type"] == "TYPE_INT32"


def test_statistics(client, numbers):
    def read():
        (facts,) = client.get_inference_statistics("simple").model_stats
        return facts

    client.infer("simple", given(numbers))
    before = read()
    for _ in range(3):
        client.infer("simple", given(numbers))
    after = read()
    assert after.inference_count - before.inference_count == 6
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(after.inference_stats, stage).count - getattr(before.inference_stats, stage).count == 3
    stages = after.inference_stats
    inner = stages.queue.ns + stages.compute_input.ns + stages.compute_infer.ns + stages.compute_output.ns
    assert 0 < inner <= stages.success.ns
    assert len(client.get_inference_statistics("simple", "1").model_stats) == 1
    assert len(client.get_inference_statistics(as_json=True)["model_stats"]) > 1
    refused(
        lambda: client.get_inference_statistics("nobody"),
        "INVALID_ARGUMENT",
        "requested model 'nobody' is not available",
    )


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer(client, numbers, compression):
    outputs = [grpc.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]
    for wanted in (None, outputs, outputs[::-1]):
        result = client.infer(
            "simple",
            given(numbers),
            outputs=wanted,
            request_id="mine",
            priority=1,
            timeout=30_000_000,
            client_timeout=30,
            headers={"who": "me"},
            compression_algorithm=compression,
            parameters={"a": "b", "n": 1, "yes": True, "x": 0.5},
        )
        check(result, numbers)
        answer = result.get_response()
        assert (answer.id, answer.model_name, answer.model_version) == ("mine", "simple", "1")
    only = client.infer("simple", given(numbers), outputs=outputs[1:])
    assert only.as_numpy("OUTPUT0") is None and (only.as_numpy("OUTPUT1") == numbers[0] - numbers[1]).all()
    assert result.get_response(as_json=True)["model_name"] == "simple"


def test_infer_async(client, numbers):
    answers = queue.Queue()
    for i in range(50):
        mine = (numbers[0] + i, numbers[1])
        client.async_infer("simple", given(mine), lambda result, error, mine=mine: answers.put((mine, result, error)))
    for _ in range(50):
        mine, result, error = answers.get(timeout=30)
        assert error is None
        check(result, mine)


def test_cancellation(client, numbers):
    answers = queue.Queue()
    call = client.async_infer("slow", slowly(500_000), lambda result, error: answers.put((result, error)))
    time.sleep(0.05)
    call.cancel()
    result, error = answers.get(timeout=10)
    assert result is None and error.status() == "StatusCode.CANCELLED"
    check(client.infer("simple", given(numbers)), numbers)


def test_timeout_of_the_client(client, numbers):
    refused(
        lambda: client.infer("slow", slowly(1_000_000), client_timeout=0.05), "DEADLINE_EXCEEDED", "Deadline Exceeded"
    )
    check(client.infer("simple", given(numbers)), numbers)


def test_timeout_of_the_request(client):
    """`timeout` is how long a request may wait: behind another one it is told so."""
    done = threading.Event()
    client.async_infer("slow", slowly(1_000_000), lambda result, error: done.set())
    time.sleep(0.05)
    asked = []
    ended = threading.Event()

    def keep(result, error):
        asked.append(error)
        if len(asked) == 8:
            ended.set()

    for _ in range(8):
        client.async_infer("slow", slowly(1), keep, timeout=1000)
    assert ended.wait(20) and done.wait(20)
    told = [error for error in asked if error is not None]
    assert told, "no request was told that it was late"
    assert all(error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED") for error in told)


def test_stream(client, numbers):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(20):
        client.async_stream_infer("simple", given((numbers[0] + i, numbers[1])), request_id=str(i))
    client.async_stream_infer("nobody", given(numbers), request_id="wrong")
    client.async_stream_infer("simple", given(numbers), request_id="after")
    seen, errors = {}, []
    for _ in range(22):
        result, error = answers.get(timeout=30)
        if error is None:
            seen[result.get_response().id] = result
        else:
            errors.append(error)
    client.stop_stream()
    for i in range(20):
        check(seen[str(i)], (numbers[0] + i, numbers[1]))
    check(seen["after"], numbers)
    assert len(errors) == 1 and "Request for unknown model: 'nobody' is not found" in errors[0].message()


def test_stream_is_cancelled(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("slow", slowly(1_000_000))
    time.sleep(0.1)
    client.stop_stream(cancel_requests=True)
    result, error = answers.get(timeout=10)
    assert result is None and error.status() == "StatusCode.CANCELLED"


def test_strings_that_are_numbers(client):
    x = np.array([[str(i).encode() for i in range(16)]], dtype=np.object_)
    inputs = [grpc.InferInput(name, [1, 16], "BYTES").set_data_from_numpy(x) for name in ("INPUT0", "INPUT1")]
    result = client.infer("simple_string", inputs)
    assert [int(v) for v in result.as_numpy("OUTPUT0")[0]] == [2 * i for i in range(16)]


def test_strings_come_back_as_they_were(client):
    x = np.array([["", "plain", "zwölf Boxkämpfer", "\u6f22\U0001f600"]], dtype=np.object_)
    one = grpc.InferInput("INPUT0", [1, 4], "BYTES").set_data_from_numpy(x)
    assert [v.decode() for v in client.infer("simple_identity", [one]).as_numpy("OUTPUT0")[0]] == x[0].tolist()


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("FP16", np.float16), ("BF16", ml_dtypes.bfloat16), ("FP32", np.float32), ("FP64", np.float64),
        ("BOOL", np.bool_), ("UINT8", np.uint8), ("INT64", np.int64), ("UINT64", np.uint64),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 3), (2, 4), (1, 0)])
def test_every_datatype(client, datatype, dtype, shape):
    x = (np.arange(np.prod(shape)) % 7).reshape(shape).astype(dtype)
    one = grpc.InferInput("INPUT0", list(shape), datatype).set_data_from_numpy(x)
    got = client.infer(f"identity_{datatype.lower()}", [one]).as_numpy("OUTPUT0")
    assert got.dtype == x.dtype and got.shape == x.shape and got.tobytes() == x.tobytes()


def test_large_messages(client):
    x = np.random.default_rng(0).standard_normal((1, 2_000_000))
    one = grpc.InferInput("INPUT0", list(x.shape), "FP64").set_data_from_numpy(x)
    assert client.infer("identity_fp64", [one]).as_numpy("OUTPUT0").tobytes() == x.tobytes()


def test_classification(client):
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    one = grpc.InferInput("x", [2, 4], "FP32").set_data_from_numpy(x)
    scores = client.infer("classes", [one]).as_numpy("y")
    classes = client.infer("classes", [one], outputs=[grpc.InferRequestedOutput("y", class_count=3)]).as_numpy("y")
    assert classes.shape == (2, 3)
    for row, line in zip(scores, classes, strict=True):
        assert [int(text.decode().split(":")[1]) for text in line] == np.argsort(-row, kind="stable")[:3].tolist()


def test_refusals_in_words(client, numbers):
    def told(inputs, words):
        refused(lambda: client.infer("simple", inputs), "INVALID_ARGUMENT", words)

    told(given(numbers)[:1], "expected 2 inputs but got 1 inputs for model 'simple'")
    wrong = grpc.InferInput("INPUT0", [2, 16], "FP32").set_data_from_numpy(numbers[0].astype(np.float32))
    told([wrong, given(numbers)[1]], "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'")
    told(given([x[:, :15] for x in numbers]), "unexpected shape for input 'INPUT0' for model 'simple'")
    many = client.get_model_config("simple").config.max_batch_size + 1
    told(given([np.zeros((many, 16), np.int32)] * 2), "batch-size must be <= ")

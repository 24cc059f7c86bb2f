"""tritonclient.http, against the models of tests/clients/models.py: every method that asks; see triton_managing.py and
triton_shared_memory.py for the others."""

from functools import partial

import ml_dtypes
import numpy as np
import pytest
import simple
import tritonclient.http as http
from simple import check
from tritonclient.utils import InferenceServerException

given = partial(simple.given, http)


@pytest.fixture(scope="module")
def client(http_address):
    with http.InferenceServerClient(http_address, concurrency=4) as client:
        yield client


def test_health(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    assert not client.is_model_ready("nobody") and not client.is_model_ready("simple", "99")


def test_query_parameters_and_headers_are_no_obstacle(client, numbers):
    assert client.is_server_live(headers={"test": "1", "dummy": "2"}, query_params={"test_1": 1, "test_2": 2})
    check(client.infer("simple", given(numbers), query_params={"test_1": [1, 2]}, headers={"x": "y"}), numbers)


def test_server_metadata(client):
    facts = client.get_server_metadata()
    assert facts["name"] == "triton" and facts["version"]
    assert {"binary_tensor_data", "statistics", "classification", "model_repository"} <= set(facts["extensions"])


def test_model_metadata(client):
    for version in ("", "1"):
        facts = client.get_model_metadata("simple", version)
        assert facts["name"] == "simple" and facts["versions"] == ["1"]
        assert [(spec["name"], spec["datatype"], spec["shape"]) for spec in facts["inputs"]] == [
            ("INPUT0", "INT32", [-1, 16]),
            ("INPUT1", "INT32", [-1, 16]),
        ]
        assert [spec["name"] for spec in facts["outputs"]] == ["OUTPUT0", "OUTPUT1"]


def test_words_about_what_is_missing(client, numbers):
    for ask in (client.get_model_metadata, client.get_model_config, lambda name: client.infer(name, given(numbers))):
        with pytest.raises(InferenceServerException) as refused:
            ask("wrong_model_name")
        assert refused.value.status() == "404"
        assert "Request for unknown model: 'wrong_model_name' is not found" in refused.value.message()
    with pytest.raises(InferenceServerException, match="'simple' version 9 is not found"):
        client.infer("simple", given(numbers), model_version="9")


def test_config(client):
    config = client.get_model_config("simple")
    assert config["name"] == "simple" and config["max_batch_size"] >= 8
    assert [(spec["name"], spec["data_type"], spec["dims"]) for spec in config["input"]] == [
        ("INPUT0", "TYPE_INT32", [16]),
        ("INPUT1", "TYPE_INT32", [16]),
    ]
    assert client.get_model_config("simple_string", "1")["output"][0]["data_type"] == "TYPE_STRING"


def test_statistics(client, numbers):
    def read():
        (facts,) = client.get_inference_statistics("simple")["model_stats"]
        return facts

    client.infer("simple", given(numbers))
    before = read()
    for _ in range(3):
        client.infer("simple", given(numbers))
    after = read()
    assert (after["name"], after["version"]) == ("simple", "1")
    assert after["inference_count"] - before["inference_count"] == 6
    stages, earlier = after["inference_stats"], before["inference_stats"]
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert stages[stage]["count"] - earlier[stage]["count"] == 3
    assert sum(stages[stage]["ns"] for stage in stages if stage not in ("success", "fail")) <= stages["success"]["ns"]
    assert after["last_inference"] >= before["last_inference"] > 1_500_000_000_000
    with_version = client.get_inference_statistics("simple", "1")["model_stats"]
    assert len(with_version) == 1 and len(client.get_inference_statistics()["model_stats"]) > 1
    with pytest.raises(InferenceServerException, match="requested model 'nobody' is not available"):
        client.get_inference_statistics("nobody")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_infer(client, numbers, binary_in, binary_out):
    outputs = binary_out
    if binary_out is not None:
        outputs = [http.InferRequestedOutput(name, binary_data=binary_out) for name in ("OUTPUT0", "OUTPUT1")]
    result = client.infer("simple", given(numbers, binary_in), outputs=outputs, request_id="mine")
    check(result, numbers)
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("mine", "simple", "1")
    assert ("binary_data_size" in result.get_output("OUTPUT0").get("parameters", {})) == (binary_out is not False)


def test_mixed_bodies_and_some_outputs(client, numbers):
    left, right = numbers
    inputs = [given(numbers, True)[0], given(numbers, False)[1]]
    outputs = [http.InferRequestedOutput("OUTPUT1", binary_data=False), http.InferRequestedOutput("OUTPUT0")]
    check(client.infer("simple", inputs, outputs=outputs), numbers)
    only = client.infer("simple", inputs, outputs=outputs[:1])
    assert only.as_numpy("OUTPUT0") is None and (only.as_numpy("OUTPUT1") == left - right).all()


def test_infer_async(client, numbers):
    asked = [client.async_infer("simple", given((numbers[0] + i, numbers[1])), request_id=str(i)) for i in range(20)]
    for i, request in enumerate(asked):
        result = request.get_result(timeout=30)
        check(result, (numbers[0] + i, numbers[1]))
        assert result.get_response()["id"] == str(i)


def test_inputs_are_reused(client, numbers):
    inputs = given(numbers)
    check(client.infer("simple", inputs), numbers)
    inputs[0].set_data_from_numpy(numbers[1], binary_data=False)
    check(client.infer("simple", inputs), (numbers[1], numbers[1]))


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("wanted", [None, "gzip", "deflate"])
def test_compression(client, numbers, sent, wanted):
    for binary in (True, False):
        result = client.infer(
            "simple",
            given(numbers, binary),
            request_compression_algorithm=sent,
            response_compression_algorithm=wanted,
            outputs=[http.InferRequestedOutput(name, binary_data=binary) for name in ("OUTPUT0", "OUTPUT1")],
        )
        check(result, numbers)


def test_parameters_priority_timeout(client, numbers):
    result = client.infer(
        "simple", given(numbers), priority=1, timeout=30_000_000, parameters={"a": "b", "n": 1, "x": 0.5, "yes": True}
    )
    check(result, numbers)


def test_reserved_parameters_are_refused_by_the_client_itself(client, numbers):
    with pytest.raises(InferenceServerException, match="reserved"):
        client.infer("simple", given(numbers), parameters={"priority": 1})


def test_int8(client):
    x = np.arange(16, dtype=np.int8)[None]
    inputs = [http.InferInput(name, [1, 16], "INT8").set_data_from_numpy(x) for name in ("INPUT0", "INPUT1")]
    assert (client.infer("simple_int8", inputs).as_numpy("OUTPUT0") == x + x).all()


@pytest.mark.parametrize("binary", [True, False])
def test_strings_that_are_numbers(client, binary):
    x = np.array([[str(i).encode() for i in range(16)]], dtype=np.object_)
    inputs = [http.InferInput(name, [1, 16], "BYTES") for name in ("INPUT0", "INPUT1")]
    for one in inputs:
        one.set_data_from_numpy(x, binary_data=binary)
    outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in ("OUTPUT0", "OUTPUT1")]
    result = client.infer("simple_string", inputs, outputs=outputs)
    assert [int(v) for v in result.as_numpy("OUTPUT0")[0]] == [2 * i for i in range(16)]
    assert [int(v) for v in result.as_numpy("OUTPUT1")[0]] == [0] * 16


@pytest.mark.parametrize("binary", [True, False])
def test_strings_come_back_as_they_were(client, binary):
    x = np.array([["", "plain", "zwölf Boxkämpfer", "\u6f22\U0001f600"]], dtype=np.object_)
    one = http.InferInput("INPUT0", [1, 4], "BYTES").set_data_from_numpy(x, binary_data=binary)
    result = client.infer("simple_identity", [one], outputs=[http.InferRequestedOutput("OUTPUT0", binary_data=binary)])
    got = [v.decode() if isinstance(v, bytes) else v for v in result.as_numpy("OUTPUT0")[0]]
    assert got == x[0].tolist()


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
    for binary in (True, False) if datatype not in ("FP16", "BF16") else (True,):
        one = http.InferInput("INPUT0", shape, datatype).set_data_from_numpy(x, binary_data=binary)
        result = client.infer(
            f"identity_{datatype.lower()}", [one], outputs=[http.InferRequestedOutput("OUTPUT0", binary_data=binary)]
        )
        got = result.as_numpy("OUTPUT0")
        assert got.dtype == x.dtype and got.shape == x.shape and got.tobytes() == x.tobytes()


def test_the_edges_of_numbers(client):
    x = np.array([[np.iinfo(np.uint64).max, 0, 1 << 53, (1 << 53) + 1]], dtype=np.uint64)
    for binary in (True, False):
        one = http.InferInput("INPUT0", [1, 4], "UINT64").set_data_from_numpy(x, binary_data=binary)
        wanted = [http.InferRequestedOutput("OUTPUT0", binary_data=binary)]
        assert (client.infer("identity_uint64", [one], outputs=wanted).as_numpy("OUTPUT0") == x).all()


def test_nan_and_infinity(client):
    x = np.array([[np.nan, np.inf, -np.inf, -0.0]], dtype=np.float32)
    one = http.InferInput("INPUT0", [1, 4], "FP32").set_data_from_numpy(x)
    assert client.infer("identity_fp32", [one]).as_numpy("OUTPUT0").tobytes() == x.tobytes()
    # The client reads JSON with rapidjson, which takes these literals.
    got = client.infer("identity_fp32", [one], outputs=[http.InferRequestedOutput("OUTPUT0", binary_data=False)])
    np.testing.assert_array_equal(got.as_numpy("OUTPUT0"), x)


@pytest.mark.parametrize("binary", [True, False])
def test_classification(client, binary):
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    one = http.InferInput("x", [2, 4], "FP32").set_data_from_numpy(x)
    scores = client.infer("classes", [one]).as_numpy("y")
    wanted = [http.InferRequestedOutput("y", binary_data=binary, class_count=3)]
    classes = client.infer("classes", [one], outputs=wanted).as_numpy("y")
    assert classes.shape == (2, 3)
    for row, line in zip(scores, classes, strict=True):
        for place, text in enumerate(line):
            value, index = (text.decode() if isinstance(text, bytes) else text).split(":")[:2]
            assert int(index) == np.argsort(-row, kind="stable")[place]
            assert abs(float(value) - row[int(index)]) < 1e-4


def test_refusals_in_words(client, numbers):
    def refused(inputs, status="400"):
        with pytest.raises(InferenceServerException) as caught:
            client.infer("simple", inputs)
        assert caught.value.status() == status
        return caught.value.message()

    assert "expected 2 inputs but got 1 inputs for model 'simple'" in refused(given(numbers)[:1])
    wrong = http.InferInput("INPUT0", [2, 16], "FP32").set_data_from_numpy(numbers[0].astype(np.float32))
    words = refused([wrong, given(numbers)[1]])
    assert "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'" in words
    assert "unexpected shape for input 'INPUT0' for model 'simple'" in refused(given([x[:, :15] for x in numbers]))
    with pytest.raises(InferenceServerException, match="OUTPUT7"):
        client.infer("simple", given(numbers), outputs=[http.InferRequestedOutput("OUTPUT7")])
    many = client.get_model_config("simple")["max_batch_size"] + 1
    assert "batch-size must be <= " in refused(given([np.zeros((many, 16), np.int32)] * 2))


def test_bodies_made_and_read_by_the_static_methods(client, numbers):
    import urllib.request

    body, size = http.InferenceServerClient.generate_request_body(given(numbers))
    request = urllib.request.Request(
        f"http://{client._parsed_url.host}:{client._parsed_url.port}/v2/models/simple/infer"
    )
    request.add_header("Inference-Header-Content-Length", str(size))
    with urllib.request.urlopen(request, data=bytes(body)) as answer:
        header = int(answer.headers["Inference-Header-Content-Length"])
        check(http.InferenceServerClient.parse_response_body(answer.read(), header_length=header), numbers)

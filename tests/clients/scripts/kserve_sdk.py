"""KServe's InferenceRESTClient and InferenceGRPCClient, protocol version 2."""

import asyncio

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferRequest, RESTConfig
from kserve import InferInput as Input
from kserve.protocol.infer_type import RequestedOutput


def asked(numbers, model="simple", binary=True, outputs=None, **options):
    inputs = []
    for name, value in zip(("INPUT0", "INPUT1"), numbers, strict=True):
        inputs.append(Input(name, list(value.shape), "INT32"))
        inputs[-1].set_data_from_numpy(value, binary_data=binary)
    if outputs is not None:
        outputs = [RequestedOutput(name, {"binary_data": outputs}) for name in ("OUTPUT0", "OUTPUT1")]
    return InferRequest(model_name=model, infer_inputs=inputs, request_outputs=outputs, request_id="mine", **options)


def check(answer, numbers):
    left, right = numbers
    assert (answer.model_name, answer.id) == ("simple", "mine")
    for name, expected in (("OUTPUT0", left + right), ("OUTPUT1", left - right)):
        np.testing.assert_array_equal(answer.get_output_by_name(name).as_numpy().reshape(expected.shape), expected)


@pytest.fixture
def rest(http_address):
    def run(walk):
        async def walked():
            async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
                await walk(client, f"http://{http_address}")

        asyncio.run(walked())

    return run


@pytest.fixture
def rpc(grpc_address):
    def run(walk):
        async def walked():
            async with InferenceGRPCClient(grpc_address) as client:
                await walk(client)

        asyncio.run(walked())

    return run


def test_rest_health(rest):
    async def walk(client, url):
        assert await client.is_server_live(url) is True and await client.is_server_ready(url) is True
        assert await client.is_model_ready(url, "simple") is True
        assert await client.is_model_ready(url, "nobody") is False

    rest(walk)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("outputs", [None, True, False])
def test_rest_infer(rest, numbers, binary, outputs):
    async def walk(client, url):
        seen = {}
        request = asked(numbers, binary=binary, outputs=outputs, parameters={"a": "b", "n": 1})
        check(await client.infer(url, request, model_name="simple", response_headers=seen), numbers)
        assert seen["content-type"] == ("application/octet-stream" if outputs else "application/json")

    rest(walk)


def test_rest_with_a_plain_dictionary(rest, numbers):
    async def walk(client, url):
        body = {
            "id": "mine",
            "inputs": [
                {"name": name, "shape": [2, 16], "datatype": "INT32", "data": value.tolist()}
                for name, value in zip(("INPUT0", "INPUT1"), numbers, strict=True)
            ],
        }
        check(await client.infer(url, body, model_name="simple"), numbers)

    rest(walk)


def test_rest_half_precision_and_text(rest):
    async def walk(client, url):
        x = np.array([[0.5, -2.0]], np.float16)
        one = Input("INPUT0", [1, 2], "FP16")
        one.set_data_from_numpy(x, binary_data=True)
        request = InferRequest("identity_fp16", [one], parameters={"binary_data_output": True})
        answer = await client.infer(url, request, model_name="identity_fp16")
        assert (answer.outputs[0].as_numpy() == x).all()
        for binary in (True, False):
            words = Input("INPUT0", [1, 2], "BYTES")
            words.set_data_from_numpy(np.array([["one", "zwölf"]], np.object_), binary_data=binary)
            answer = await client.infer(url, InferRequest("simple_identity", [words]), model_name="simple_identity")
            assert answer.outputs[0].data == ["one", "zwölf"]

    rest(walk)


def test_rest_errors_carry_the_words(rest, numbers):
    async def walk(client, url):
        with pytest.raises(httpx.HTTPStatusError, match="Request for unknown model: 'nobody' is not found, '404"):
            await client.infer(url, asked(numbers, "nobody"), model_name="nobody")
        with pytest.raises(httpx.HTTPStatusError, match=r"expected 2 inputs but got 1 inputs.*'400"):
            request = asked(numbers)
            del request.inputs[1]
            await client.infer(url, request, model_name="simple")

    rest(walk)


def test_grpc_health(rpc):
    async def walk(client):
        assert await client.is_server_live() is True and await client.is_server_ready() is True
        assert await client.is_model_ready("simple") is True

    rpc(walk)


@pytest.mark.parametrize("binary", [True, False])
def test_grpc_infer(rpc, numbers, binary):
    async def walk(client):
        check(await client.infer(asked(numbers, binary=binary, parameters={"a": "b", "n": 1})), numbers)
        check(await client.infer(asked(numbers, binary=binary), timeout=20, headers=(("who", "me"),)), numbers)

    rpc(walk)


def test_grpc_half_precision_and_text(rpc):
    async def walk(client):
        x = np.array([[0.5, -2.0]], np.float16)
        one = Input("INPUT0", [1, 2], "FP16")
        one.set_data_from_numpy(x)
        assert (await client.infer(InferRequest("identity_fp16", [one]))).outputs[0].as_numpy().tolist() == x.tolist()
        words = Input("INPUT0", [1, 2], "BYTES", data=["one", "zwölf"])
        answer = await client.infer(InferRequest("simple_identity", [words]))
        assert [v.decode() for v in answer.outputs[0].as_numpy().ravel()] == ["one", "zwölf"]

    rpc(walk)


def test_grpc_errors_carry_the_words(rpc, numbers):
    async def walk(client):
        with pytest.raises(grpc.RpcError) as refused:
            await client.infer(asked(numbers, "nobody"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
        assert "Request for unknown model: 'nobody' is not found" in refused.value.details()
        with pytest.raises(grpc.RpcError) as refused:
            await client.is_model_ready("nobody")
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND

    rpc(walk)

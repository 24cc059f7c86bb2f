"""V2 inference end to end: every datatype in every form, packed bodies, and each refusal's status, code and words."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import zlib
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from gateway.routing.router import ModelRoutes, RouteTable
from gateway.shared_memory import Regions
from tests import zoo
from tests.gateway.engines import deploy, engine, tensor, until
from tests.gateway.test_fastlane import Client

VALUES: Mapping[str, tuple[int, np.ndarray]] = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 255]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 65535]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 2**32 - 1]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 2**64 - 1]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[-128, 127]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[-32768, 32767]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[-(2**31), 2**31 - 1]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[-(2**63), 2**63 - 1]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[1.5, np.nan]], np.float16)),
    "BF16": (TensorProto.BFLOAT16, np.array([[1.5, -np.inf]], ml_dtypes.bfloat16)),
    "FP32": (TensorProto.FLOAT, np.array([[np.nan, -np.inf]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[0.1, np.inf]], np.float64)),
    "BYTES": (TensorProto.STRING, np.array([["höllo".encode(), b""]], dtype=object)),
}
HALF = ("FP16", "BF16")


class Server(Client):
    """`Client` with the steps of these tests. Paths are those of models; `ask` sends JSON and reads any answer."""

    async def ask(self, model: str, header: dict, *tensors: bytes, **headers: str):
        """(status, answer, bytes behind the JSON, headers)"""
        text = json.dumps(header).encode()
        if tensors:
            headers["inference_header_content_length"] = str(len(text))
        return self.parted(await self.post(f"/v2/models/{model}/infer", text + b"".join(tensors), **headers))

    @staticmethod
    def parted(reply):
        status, fields, body = reply
        length = int(fields.get("inference-header-content-length", len(body)))
        return status, json.loads(body[:length]), body[length:], fields


def serve(test, tmp_path: Path, models: Mapping[str, onnx.ModelProto], **changes):
    async def run():
        async with engine(**changes) as serving:
            for name, model in models.items():
                await deploy(serving, name, model, tmp_path)
            await test(Server(serving), serving)

    asyncio.run(asyncio.wait_for(run(), 90))


def given(name: str, datatype: str, shape, **more) -> dict:
    return {"name": name, "shape": list(shape), "datatype": datatype, **more}


def test_every_datatype_comes_back_bit_for_bit_in_every_form(tmp_path):
    async def test(client, serving):
        for datatype, (_, array) in VALUES.items():
            sent = bytes(tensor(array).data)
            one = given("INPUT0", datatype, array.shape, parameters={"binary_data_size": len(sent)})
            as_binary = {"inputs": [one], "parameters": {"binary_data_output": True}}
            status, head, tail, _ = await client.ask(datatype, as_binary, sent)
            assert (status, tail) == (200, sent), (datatype, head)
            (output,) = head["outputs"]
            assert (output["datatype"], output["shape"]) == (datatype, list(array.shape))
            assert output["parameters"] == {"binary_data_size": len(sent)}
            values = [item.decode() for item in array.ravel()] if datatype == "BYTES" else array.ravel().tolist()
            inline = given("INPUT0", datatype, array.shape, data=values)
            status, head, _, _ = await client.ask(datatype, {"inputs": [inline]})
            if datatype in HALF:
                assert status == 400
                words = f"receiving {datatype} data via JSON is not supported. Please use the binary data format for"
                assert head["error"].startswith(words)
                status, head, _, _ = await client.ask(datatype, {"inputs": [one]}, sent)
                assert status == 400
                assert head["error"].startswith(f"sending {datatype} data via JSON is not supported")
                continue
            assert status == 200, head
            np.testing.assert_array_equal(head["outputs"][0]["data"], values)

    serve(test, tmp_path, {datatype: zoo.identity(element) for datatype, (element, _) in VALUES.items()})


def test_raw_tensors_go_in_without_a_header_and_come_out_as_binary(tmp_path):
    async def test(client, serving):
        zero = {"inference_header_content_length": "0"}
        x = np.arange(8, dtype=np.float32)
        status, head, tail, _ = client.parted(await client.post("/v2/models/FP32/infer", x.tobytes(), **zero))
        assert (status, tail) == (200, x.tobytes())
        assert head["outputs"][0]["shape"] == [1, 8]
        status, head, tail, _ = client.parted(await client.post("/v2/models/text/infer", b"427", **zero))
        assert (status, tail) == (200, b"\3\0\0\x00427")
        status, head, _, _ = client.parted(await client.post("/v2/models/simple/infer", bytes(128), **zero))
        assert (status, head["error"]) == (
            400,
            "[request id: <id_unknown>] Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in "
            "'simple' model configuration",
        )

    models = {"FP32": zoo.identity(TensorProto.FLOAT), "text": zoo.strings(), "simple": zoo.simple()}
    serve(test, tmp_path, models)


def simple(rows: int = 1, **more) -> dict:
    data = list(range(16 * rows))
    inputs = [given(f"INPUT{nth}", "INT32", (rows, 16), data=data) for nth in range(2)]
    return {"inputs": inputs, **more}


def test_outputs_are_mixed_classified_and_in_the_order_asked_for(tmp_path):
    async def test(client, serving):
        outputs = [
            {"name": "OUTPUT1", "parameters": {"binary_data": True}},
            {"name": "OUTPUT0", "parameters": {"classification": 2}},
        ]
        status, head, tail, fields = await client.ask("simple", simple(2, outputs=outputs, id="7"))
        assert (status, head["id"], fields["content-type"]) == (200, "7", "application/octet-stream")
        assert [output["name"] for output in head["outputs"]] == ["OUTPUT1", "OUTPUT0"]
        assert tail == bytes(2 * 16 * 4)
        assert head["outputs"][1]["data"] == ["30:15", "28:14", "62:15", "60:14"]
        assert head["outputs"][1]["shape"] == [2, 2]

    serve(test, tmp_path, {"simple": zoo.simple()})


def test_empty_tensors_and_scalars_pass(tmp_path):
    async def test(client, serving):
        empty = given("INPUT0", "FP32", (1, 0), data=[])
        status, head, _, _ = await client.ask("FP32", {"inputs": [empty]})
        assert (status, head["outputs"][0]["shape"], head["outputs"][0]["data"]) == (200, [1, 0], [])
        empty = given("INPUT0", "FP32", (1, 0), parameters={"binary_data_size": 0})
        asked = {"inputs": [empty], "parameters": {"binary_data_output": True}}
        status, head, tail, fields = await client.ask("FP32", asked)
        assert (status, tail, fields["content-type"]) == (200, b"", "application/json")
        assert head["outputs"][0]["parameters"] == {"binary_data_size": 0}
        status, head, _, _ = await client.ask("FP32", {"inputs": [given("INPUT0", "FP32", (0, 3), data=[])]})
        assert (status, head["outputs"][0]["shape"]) == (200, [0, 3])
        status, head, _, _ = await client.ask("text", {"inputs": [given("text", "BYTES", (0,), data=[])]})
        assert (status, head["outputs"][0]["data"]) == (200, [])
        rows = given("x", "FP32", (2, 4), data=[1.0] * 8)
        status, head, _, _ = await client.ask("mean", {"inputs": [rows]})
        assert (status, head["outputs"][0]["shape"], head["outputs"][0]["data"]) == (200, [], [1.0])

    models = {"FP32": zoo.identity(TensorProto.FLOAT), "mean": zoo.scalar_output(), "text": zoo.strings()}
    serve(test, tmp_path, models)


@pytest.mark.parametrize(("encoding", "unpack"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_bodies_are_packed_both_ways_and_lengths_are_those_of_the_plain_json(tmp_path, encoding, unpack):
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]

    async def test(client, serving):
        asked = {**simple(64), "parameters": {"binary_data_output": True}}
        plain = await client.post("/v2/models/simple/infer", json.dumps(asked).encode())
        body = pack(json.dumps(asked).encode())
        accept = {"accept_encoding": f"{encoding};q=1.0, identity;q=0.1"}
        status, fields, packed = await client.post("/v2/models/simple/infer", body, content_encoding=encoding, **accept)
        assert (status, fields["content-encoding"]) == (200, encoding)
        assert int(fields["content-length"]) == len(packed) < len(plain[2])
        assert unpack(packed) == plain[2]
        assert fields["inference-header-content-length"] == plain[1]["inference-header-content-length"]
        small = await client.post("/v2/models/simple/infer", json.dumps(simple()).encode(), **accept)
        assert "content-encoding" not in small[1]
        rows = json.dumps({"instances": [{"INPUT0": list(range(16)), "INPUT1": [0] * 16}] * 20}).encode()
        status, fields, packed = await client.post("/v1/models/simple:predict", rows, **accept)
        assert (status, fields["content-encoding"]) == (200, encoding)
        assert len(json.loads(unpack(packed))["predictions"]) == 20
        large = await client.post("/v2/models/simple/infer", json.dumps(simple(4000)).encode(), **accept)
        assert len(json.loads(unpack(large[2]))["outputs"][0]["data"]) == 16 * 4000

    serve(test, tmp_path, {"simple": zoo.simple()})


ID = {"id": "X"}
PREFIX = "[request id: X] "
WRONG: list[tuple[dict, str]] = [
    (simple(5000), "inference request batch-size must be <= 4096 for 'simple'"),
    (
        {"inputs": [given("INPUT0", "INT32", (1, 16), data=[0] * 16)]},
        "expected 2 inputs but got 1 inputs for model 'simple'. Got input(s) ['INPUT0'], but missing required input(s) "
        "['INPUT1']. Please provide all required input(s).",
    ),
    (
        {"inputs": [given("INPUT0", "INT32", (1, 15), data=[0] * 15), simple()["inputs"][1]]},
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,15].",
    ),
    (
        {"inputs": [given("INPUT0", "FP32", (1, 16), data=[0] * 16), simple()["inputs"][1]]},
        "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'",
    ),
    (
        {"inputs": [given("INPUT2", "INT32", (1, 16), data=[0] * 16), simple()["inputs"][1]]},
        "unexpected inference input 'INPUT2' for model 'simple'",
    ),
    ({"inputs": simple()["inputs"] * 2}, "input 'INPUT0' already exists in request"),
    (simple(outputs=[{"name": "OUTPUT2"}]), "unexpected inference output 'OUTPUT2' for model 'simple'"),
]


def test_a_wrong_request_is_refused_with_tritons_words_behind_its_id(tmp_path):
    async def test(client, serving):
        for header, words in WRONG:
            status, head, _, fields = await client.ask("simple", {**header, **ID})
            assert (status, fields["content-type"], head) == (400, "application/json", {"error": PREFIX + words})
        sized = given("INPUT0", "INT32", (1, 16), parameters={"binary_data_size": 60})
        header = {"inputs": [sized, simple()["inputs"][1]], **ID}
        status, head, _, _ = await client.ask("simple", header, bytes(60))
        words = "input byte size mismatch for input 'INPUT0' for model 'simple'. Expected 64, got 60"
        assert (status, head) == (400, {"error": PREFIX + words})
        status, head, _, _ = await client.ask("simple", header, bytes(50))
        words = "unexpected size for input 'INPUT0', expecting 10 additional bytes for model 'simple'"
        assert (status, head) == (400, {"error": words})
        status, head, _, _ = await client.ask("simple", header, bytes(70))
        assert (status, head["error"].startswith("unexpected additional input data for model 'simple'")) == (400, True)
        few = {"inputs": [given("INPUT0", "INT32", (1, 16), data=[0] * 15), simple()["inputs"][1]]}
        status, head, _, _ = await client.ask("simple", few)
        words = "Unable to parse 'data': Shape does not match true shape of 'data' field"
        assert (status, head["error"].startswith(words)) == (400, True)
        for value in ("-1", "many", "100000"):
            status, head, _, _ = client.parted(
                await client.post("/v2/models/simple/infer", b"{}", inference_header_content_length=value)
            )
            words = f"inference header size should be in range (0, 2), got: {value}"
            assert (status, head) == (400, {"error": words})
        status, head, _, fields = await client.ask("simple", simple(), content_encoding="br")
        assert (status, fields["accept-encoding"]) == (501, "gzip, deflate")
        assert head["error"].startswith("Unsupported compression type")

    serve(test, tmp_path, {"simple": zoo.simple()})


def test_models_that_cannot_answer_say_why(tmp_path):
    async def test(client, serving):
        route = serving.table.models["simple"].versions["1"]
        models = {
            "simple": ModelRoutes({"1": route}, {}, "1", {"2": "it has no reference yet"}),
            "late": ModelRoutes({}, {}, None, {"1": "its reference is being opened"}),
            "gone": ModelRoutes({}, {}, None, {"1": "unloaded"}, unloaded=True),
            "none": ModelRoutes({}, {}, None),
        }
        serving.table = RouteTable(models, 1, serving.health)
        for model, status, words in (
            ("nobody", 404, "Request for unknown model: 'nobody' is not found"),
            ("simple/versions/3", 404, "Request for unknown model: 'simple' version 3 is not found"),
            ("none", 404, "Request for unknown model: 'none' has no available versions"),
            ("gone", 404, "Request for unknown model: 'gone' has no available versions"),
            (
                "simple/versions/2",
                503,
                "Request for unknown model: 'simple' version 2 is not at ready state: it has no",
            ),
            ("late", 503, "Request for unknown model: 'late' version 1 is not at ready state: its reference"),
            ("gone/versions/1", 503, "Request for unknown model: 'gone' version 1 is not at ready state: unloaded"),
        ):
            got, head, _, fields = await client.ask(model, simple())
            assert (got, fields["content-type"], list(head)) == (status, "application/json", ["error"])
            assert head["error"].startswith(words)

    serve(test, tmp_path, {"simple": zoo.simple()})


def test_full_late_and_leaving_servers_answer_503_with_tritons_words(tmp_path):
    async def test(client, serving):
        os.kill(serving.runners.get("ort-cpu").pid, signal.SIGSTOP)
        waiting = [asyncio.create_task(client.ask("simple", simple(parameters={"timeout": 700_000}))) for _ in range(4)]
        await until(lambda: serving.admission.inflight == 4)
        status, head, _, fields = await client.ask("simple", simple())
        assert (status, head["error"].startswith("Exceeds maximum queue size")) == (503, True)
        assert fields["retry-after"] == "1"
        for status, head, _, _ in await asyncio.gather(*waiting):
            assert (status, head) in ((503, {"error": "Request timeout expired"}), (504, head))
        serving.draining = True
        status, head, _, fields = await client.ask("simple", simple())
        assert (status, head["error"].startswith("Server not ready")) == (503, True)

    serve(test, tmp_path, {"simple": zoo.simple()}, max_inflight=4)


def test_shared_memory_carries_texts_and_both_ways_within_one_region(tmp_path):
    async def test(client, serving):
        serving.regions = Regions(True, tmp_path)
        text = bytes(tensor(np.array([b"a", b"bc"], dtype=object)).data)
        (tmp_path / "texts").write_bytes(text + bytes(64))
        serving.regions.register("r", "/texts", 0, len(text) + 64)
        size = {"shared_memory_region": "r", "shared_memory_byte_size": len(text)}
        out = {"shared_memory_region": "r", "shared_memory_offset": len(text), "shared_memory_byte_size": 64}
        header = {
            "inputs": [given("text", "BYTES", (2,), parameters=size)],
            "outputs": [{"name": "same", "parameters": out}],
        }
        for _ in range(2):
            status, head, _, _ = await client.ask("text", header)
            assert (status, head["outputs"]) == (200, [{"name": "same", "datatype": "BYTES", "shape": [2]}])
        assert (tmp_path / "texts").read_bytes()[len(text) : 2 * len(text)] == text

    serve(test, tmp_path, {"text": zoo.strings()})

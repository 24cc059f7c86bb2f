"""ModelInfer and ModelStreamInfer against a real server: tensors, parameters, refusals, cancellation, deadlines."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import httpx
import ml_dtypes
import numpy as np
import pytest
import uvicorn
from onnx import TensorProto

from gateway.fastlane import FastLane
from gateway.grpc.messages import message
from gateway.grpc.stream import WINDOW
from tests import zoo
from tests.gateway.engines import until
from tests.gateway.grpc_calls import arrays, fails, grpc_serving, raw, request, run

Code = grpc.StatusCode
X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
A, B = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)

DATATYPES: dict[str, tuple[int, np.ndarray]] = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 255]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 65535]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 2**32 - 1]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 2**64 - 1]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[-128, 127]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[-32768, 32767]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[-(2**31), 2**31 - 1]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[-(2**63), 2**63 - 1]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[1.5, np.inf]], np.float16)),
    "BF16": (TensorProto.BFLOAT16, np.array([[1.5, -2]], ml_dtypes.bfloat16)),
    "FP32": (TensorProto.FLOAT, np.array([[np.nan, -np.inf]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[0.1, np.nan]], np.float64)),
    "BYTES": (TensorProto.STRING, np.array([["héllo".encode(), b""]], dtype=object)),
}
TYPED = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def test_every_datatype_passes_raw_and_typed_and_comes_back_raw(tmp_path):
    async def test():
        models = {name.lower(): zoo.identity(element) for name, (element, _) in DATATYPES.items()}
        async with grpc_serving(tmp_path, models) as client:
            for datatype, (_, array) in DATATYPES.items():
                route = client.serving.table.resolve(datatype.lower())
                name = route.signature.inputs[0].name
                asked = request(datatype.lower(), {name: array}, id=datatype)
                answer = await client.ModelInfer(asked)
                assert list(answer.raw_output_contents) == [raw(array)], datatype
                assert (answer.id, answer.model_version) == (datatype, "1")
                assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [1, 2])
                assert answer.parameters["variant"].string_param == "reference"
                if datatype not in TYPED:
                    continue
                del asked.raw_input_contents[:]
                getattr(asked.inputs[0].contents, TYPED[datatype]).extend(array.ravel().tolist())
                assert list((await client.ModelInfer(asked)).raw_output_contents) == [raw(array)], datatype

    run(test())


def test_outputs_come_as_asked_for_and_all_without_asking(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}) as client:
            inputs = {"INPUT1": B, "INPUT0": A}
            assert [output.name for output in (await client.infer("simple", inputs)).outputs] == ["OUTPUT0", "OUTPUT1"]
            answer = await client.infer("simple", inputs, ["OUTPUT1"])
            assert [output.name for output in answer.outputs] == ["OUTPUT1"]
            assert (arrays(answer)["OUTPUT1"] == A - B).all()
            empty = {"INPUT0": A[:0], "INPUT1": B[:0]}
            assert list((await client.infer("simple", empty)).raw_output_contents) == [b"", b""]

    run(test())


def test_classification_answers_with_the_largest_values_as_texts(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}) as client:
            asked = request("simple", {"INPUT0": A, "INPUT1": B}, ["OUTPUT0"])
            asked.outputs[0].parameters["classification"].int64_param = 2
            answer = await client.ModelInfer(asked)
            assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [1, 2])
            assert answer.raw_output_contents[0][4:] == b"16:15" + (5).to_bytes(4, "little") + b"15:14"

    run(test())


def test_what_is_wrong_with_a_request_is_said_in_tritons_words(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple(), "mlp": zoo.mlp()}) as client:
            inputs = {"INPUT0": A, "INPUT1": B}

            async def refused(code: Code, text: str, change: Any = None, **fields: Any) -> None:
                asked = request("simple", inputs, **fields)
                if change is not None:
                    change(asked)
                with fails(code, text):
                    await client.ModelInfer(asked)

            def with_contents(asked: Any) -> None:
                asked.inputs[0].contents.int_contents.append(1)

            def typed_wrong(asked: Any) -> None:
                del asked.raw_input_contents[:]
                for given in asked.inputs:
                    given.contents.fp32_contents.extend([1.0] * 16)

            def nothing(asked: Any) -> None:
                del asked.raw_input_contents[:]

            def reserved(asked: Any) -> None:
                asked.parameters["triton_x"].bool_param = True

            def shape(asked: Any) -> None:
                asked.inputs[0].shape[1] = 15

            def datatype(asked: Any) -> None:
                asked.inputs[0].datatype = "FP32"

            bad = Code.INVALID_ARGUMENT
            await refused(
                Code.NOT_FOUND, "Request for unknown model: 'simple' version 3 is not found", model_version="3"
            )
            await refused(bad, "contents field must not be specified when using raw_input_contents for", with_contents)
            await refused(bad, "of type 'FP32', expected datatype 'INT32'", typed_wrong)
            await refused(bad, "unable to find data for input tensor 'INPUT0' for model 'simple' in request.", nothing)
            await refused(bad, "for model 'simple' in request.", lambda asked: asked.raw_input_contents.pop())
            await refused(bad, "unexpected additional input data", lambda asked: asked.raw_input_contents.append(b"x"))
            await refused(bad, "reserved", reserved)
            await refused(bad, "[request id: 7] unexpected shape for input 'INPUT0'", shape, id="7")
            await refused(bad, "data-type is 'FP32', but model 'simple' expects 'INT32'", datatype)
            await refused(bad, "unexpected inference output 'Z' for model 'simple'", outputs=["Z"])
            await refused(
                bad, "no variant 'none'", lambda a: a.parameters["variant"].__setattr__("string_param", "none")
            )
            with fails(bad, "expected 2 inputs but got 1 inputs for model 'simple'"):
                await client.infer("simple", {"INPUT0": A})
            with fails(bad, "inference request batch-size must be <= 4096 for 'mlp'"):
                await client.infer("mlp", {"x": np.zeros((4097, 64), np.float32)})
            with fails(Code.NOT_FOUND, "Request for unknown model: 'no' is not found"):
                await client.infer("no", inputs)
            garbage = client.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with fails(bad, "failed to parse the ModelInferRequest"):
                await garbage(b"\x0a\x7fnot a message")
            unknown_field = request("simple", inputs).SerializeToString() + b"\xf8\x07\x01"
            assert await garbage(unknown_field)

    run(test())


def test_a_full_house_is_unavailable(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"mlp": zoo.mlp()}, max_inflight=1) as client:
            client.serving.admission.enter(1)
            with fails(Code.UNAVAILABLE, "Exceeds maximum queue size"):
                await client.infer("mlp", {"x": X})
            client.serving.draining = True
            with fails(Code.UNAVAILABLE, "Server not ready"):
                await client.infer("mlp", {"x": X})

    run(test())


def test_a_cancelled_call_never_runs(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"mlp": zoo.mlp()}) as client:
            [runner] = client.serving.runners._runners.values()
            free, runner._flight.free = runner._flight.free, []  # nothing can be dispatched
            batcher = client.serving.batchers["mlp", "1"]
            call = client.ModelInfer(request("mlp", {"x": X}))
            await until(lambda: batcher.depth == 1)
            call.cancel()
            await until(lambda: client.serving.admission.inflight == 0)
            runner._flight.free = free
            assert list((await client.infer("mlp", {"x": X})).raw_output_contents)
            assert sum(model["execution_count"] for model in client.serving.statistics.of("mlp")) == 1

    run(test())


def test_the_deadline_of_the_call_is_the_deadline_of_the_request(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"mlp": zoo.mlp()}) as client:
            [runner] = client.serving.runners._runners.values()
            free, runner._flight.free = runner._flight.free, []
            client.timeout = 0.2
            with fails(Code.DEADLINE_EXCEEDED):
                await client.infer("mlp", {"x": X})
            await until(lambda: client.serving.admission.inflight == 0)
            client.timeout = 20
            asked = request("mlp", {"x": X})
            asked.parameters["timeout"].int64_param = 100_000
            with fails(Code.UNAVAILABLE, "Request timeout expired"):
                await client.ModelInfer(asked)
            runner._flight.free = free

    run(test())


def test_fifty_megabytes_go_and_come(tmp_path):
    async def test():
        array = np.random.default_rng(0).standard_normal((1, 13_000_000)).astype(np.float32)
        models = {"same": zoo.identity(TensorProto.FLOAT)}
        async with grpc_serving(tmp_path, models, slot_bytes=160 << 20) as client:
            name = client.serving.table.resolve("same").signature.inputs[0].name
            answer = await client.infer("same", {name: array})
            assert answer.raw_output_contents[0] == array.tobytes()
            typed = request("same", {name: array[:, :1_000_000]})
            del typed.raw_input_contents[:]
            typed.inputs[0].contents.fp32_contents.extend(array[0, :1_000_000].tolist())
            assert (await client.ModelInfer(typed)).raw_output_contents[0] == array[:, :1_000_000].tobytes()

    run(test())


def test_a_stream_answers_in_order_and_reports_errors_in_band(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"mlp": zoo.mlp()}) as client:

            async def requests():
                for nth in range(200):
                    yield request("no" if nth == 100 else "mlp", {"x": X * nth}, id=str(nth))

            answers = [answer async for answer in client.ModelStreamInfer(requests())]
            assert [answer.infer_response.id for answer in answers] == [str(nth) for nth in range(200)]
            assert answers[100].error_message == "Request for unknown model: 'no' is not found"
            assert not any(answer.error_message for nth, answer in enumerate(answers) if nth != 100)
            assert answers[0].infer_response.parameters["triton_final_response"].bool_param
            alone = await client.infer("mlp", {"x": X * 7})
            assert answers[7].infer_response.raw_output_contents == alone.raw_output_contents
            client.metadata = (("triton_grpc_error", "true"),)

            async def one_wrong():
                yield request("no", {"x": X})
                await asyncio.sleep(30)  # writing on while the stream ends would be an error of the client's own

            with fails(Code.NOT_FOUND, "Request for unknown model: 'no' is not found"):
                _ = [answer async for answer in client.ModelStreamInfer(one_wrong())]

    run(test())


@pytest.mark.parametrize(("sent", "taken"), [(3, 3), (WINDOW + 30, WINDOW + 2)])
def test_a_cancelled_stream_withdraws_what_waits(tmp_path, sent, taken):
    async def test():
        async with grpc_serving(tmp_path, {"mlp": zoo.mlp()}) as client:
            [runner] = client.serving.runners._runners.values()
            free, runner._flight.free = runner._flight.free, []

            async def requests():
                for _ in range(sent):
                    yield request("mlp", {"x": X})
                await asyncio.sleep(60)

            call = client.ModelStreamInfer(requests())
            reading = asyncio.ensure_future(call.read())
            await until(lambda: client.serving.admission.inflight == taken)
            call.cancel()
            await until(lambda: client.serving.admission.inflight == 0)
            runner._flight.free = free
            await asyncio.gather(reading, return_exceptions=True)

    run(test())


def test_concurrent_callers_get_their_own_answers_and_the_bits_of_http(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"mlp": zoo.mlp()}) as client:
            lane = FastLane(_elsewhere, client.serving)
            config = uvicorn.Config(lane, port=0, lifespan="off", log_config=None, ws="none")
            server = uvicorn.Server(config)
            serving = asyncio.ensure_future(server.serve())
            await until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            limits = httpx.Limits(max_connections=8)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60) as http:
                rng = np.random.default_rng(1)

                async def both(nth: int) -> None:
                    x = rng.standard_normal((1 + nth % 3, 64)).astype(np.float32)
                    given = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
                    body = {"id": str(nth), "inputs": [given]}
                    by_grpc, by_http = await asyncio.gather(
                        client.infer("mlp", {"x": x}, id=str(nth)), http.post("/v2/models/mlp/infer", json=body)
                    )
                    assert by_grpc.id == by_http.json()["id"] == str(nth)
                    answer = np.array(by_http.json()["outputs"][0]["data"], np.float32)
                    assert answer.tobytes() == by_grpc.raw_output_contents[0]

                await asyncio.gather(*(both(nth) for nth in range(300)))
            server.should_exit = True
            await serving

    run(test())


async def _elsewhere(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("only predictions are asked for")


def test_answers_of_unknown_methods_are_unimplemented(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {}) as client:
            with fails(Code.UNIMPLEMENTED):
                await client.channel.unary_unary("/inference.GRPCInferenceService/No")(b"")
            assert message("ServerLiveResponse")(live=True) == await client.ServerLive()

    run(test())


def test_tensors_of_every_size_keep_their_bytes(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"same": zoo.identity(TensorProto.UINT8)}) as client:
            name = client.serving.table.resolve("same").signature.inputs[0].name
            for nbytes in (0, 1, 127, 128, 16_384, 65_536, 3_000_000):
                array = np.frombuffer(np.random.default_rng(nbytes).bytes(nbytes), np.uint8).reshape(1, nbytes)
                assert (await client.infer("same", {name: array})).raw_output_contents[0] == array.tobytes()

    run(test())


def test_messages_that_come_again_are_answered_for_what_they_say_now(tmp_path):
    rows = np.random.default_rng(0).standard_normal((12, 4, 64), dtype=np.float32)

    async def test():
        async with grpc_serving(tmp_path, {"a": zoo.mlp(seed=1), "b": zoo.mlp(seed=2)}) as client:

            async def check(name: str, x: np.ndarray, **fields: Any) -> None:
                answer = await client.ModelInfer(request(name, {"x": x}, **fields))
                again = await client.ModelInfer(request(name, {"x": x}, ("y",), **fields))
                assert (answer.model_name, answer.id) == (name, fields.get("id", ""))
                assert list(answer.outputs[0].shape) == [len(x), 10]
                assert answer.raw_output_contents == again.raw_output_contents  # the other one is never remembered

            for name in ("a", "b", "a", "b"):  # names of one length: only the bytes of the name tell them apart
                for count in (1, 2, 4, 1):
                    await check(name, rows[0][:count])
            await check("a", rows[0], id="mine")
            await check("a", rows[0])
            await asyncio.gather(*(check(name, x[:count]) for x in rows for name in "ab" for count in (1, 2)))

    run(test())


def test_several_tensors_of_a_message_that_comes_again_stay_apart(tmp_path):
    a, b = np.arange(8, dtype=np.float32).reshape(2, 4), np.ones((2, 4), np.int32)

    async def test():
        async with grpc_serving(tmp_path, {"m": zoo.multi_io()}) as client:
            for turn in range(4):
                for order in (("a", "b"), ("b", "a")):
                    given = {"a": a + turn, "b": b * turn}
                    answer = await client.ModelInfer(request("m", {name: given[name] for name in order}))
                    assert list(answer.raw_output_contents) == [raw(a + 2 * turn), raw(a)]

    run(test())


def test_a_known_message_to_a_model_that_is_gone_is_refused_as_ever(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"m": zoo.mlp()}) as client:
            for _ in range(2):
                await client.infer("m", {"x": X})
            table = client.serving.table
            client.serving.table = type(table)({}, 2, table.health)
            with fails(Code.NOT_FOUND, "Request for unknown model: 'm' is not found"):
                await client.infer("m", {"x": X})
            client.serving.table = table
            await client.infer("m", {"x": X})

    run(test())


def test_a_variant_named_in_the_metadata_counts_for_a_known_message_too(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"m": zoo.mlp()}) as client:
            for variant in ("reference", "none"):
                client.metadata = ()
                for _ in range(2):
                    await client.infer("m", {"x": X})
                client.metadata = (("forgeway-variant", variant),)
                if variant == "none":
                    with fails(Code.INVALID_ARGUMENT, "has no variant 'none'"):
                        await client.infer("m", {"x": X})
                else:
                    await client.infer("m", {"x": X})

    run(test())

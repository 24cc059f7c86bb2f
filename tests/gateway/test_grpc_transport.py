"""Calls as they are on the wire: messages cut and packed in every way, deadlines, slow peers, and what is no call."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib

import grpc
import grpc.aio
import numpy as np
import onnx
import pytest
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame

from gateway.grpc.errors import Refused
from gateway.grpc.head import Rpc, head_of
from gateway.grpc.messages import HEALTH, SERVICE, message
from gateway.grpc.status import Code as Ours
from gateway.grpc.status import percent_encoded
from gateway.http2 import limits
from gateway.http2.headers import Headers
from tests import zoo
from tests.gateway.engines import until
from tests.gateway.grpc_calls import NO_LIMIT, arrays, fails, grpc_serving, request, run
from tests.gateway.http2.serving import PREFACE, SettingsFrame, Wire

Code = grpc.StatusCode
INPUTS = {"INPUT0": np.arange(16, dtype=np.int32).reshape(1, 16), "INPUT1": np.ones((1, 16), np.int32)}
INFER, STREAM, READY = (f"/{SERVICE}/{name}" for name in ("ModelInfer", "ModelStreamInfer", "ModelReady"))
ASK = request("simple", INPUTS).SerializeToString()


def prefixed(data: bytes, packed: bool = False) -> bytes:
    return bytes((packed,)) + len(data).to_bytes(4, "big") + data


@contextlib.asynccontextmanager
async def wire_to(address: str):
    reader, writer = await asyncio.open_connection(*address.split(":"))
    wire = Wire(reader, writer)
    wire.send(PREFACE, SettingsFrame(0))
    try:
        yield wire
    finally:
        writer.close()


def fields(path=INFER, method="POST", kind="application/grpc", **more):
    given = [(":method", method), (":scheme", "http"), (":path", path), ("content-type", kind), ("te", "trailers")]
    return given + [(name.replace("_", "-"), value) for name, value in more.items()]


async def outcome(wire: Wire, stream: int) -> tuple[dict[bytes, bytes], bytes]:
    """Every header and trailer of a stream together, and its data."""
    headers, data = {}, b""
    while (frame := await wire.frame()) is not None:
        if isinstance(frame, HeadersFrame):
            decoded = wire.decoder.decode(frame.data, raw=True)
            headers |= dict(decoded) if frame.stream_id == stream else {}
        if frame.stream_id == stream:
            assert not isinstance(frame, RstStreamFrame), frame
            data += frame.data if isinstance(frame, DataFrame) else b""
            if "END_STREAM" in frame.flags:
                return headers, data
    raise AssertionError("the connection ended")


async def status(wire: Wire, stream: int, sent: bytes, *flags: str, **head) -> tuple[Code, str]:
    wire.send(wire.headers(stream, fields(**head)), DataFrame(stream, sent, flags=["END_STREAM", *flags]))
    headers, _ = await outcome(wire, stream)
    code = int(headers[b"grpc-status"])
    return next(each for each in Code if each.value[0] == code), headers.get(b"grpc-message", b"").decode()


def test_a_call_says_how_it_ended_whatever_was_wrong_with_its_message(tmp_path):
    async def test():
        serving = grpc_serving(tmp_path, {"simple": zoo.simple()}, slot_bytes=4 << 20)
        async with serving as client, wire_to(client.address) as wire:
            assert await status(wire, 1, prefixed(ASK)) == (Code.OK, "")
            one, bomb = "exactly one whole message", prefixed(gzip.compress(bytes(9 << 20)), True)
            for nth, (sent, code, text, head) in enumerate((
                (b"", Code.INTERNAL, one, {}),
                (prefixed(ASK)[:-1], Code.INTERNAL, one, {}),
                (prefixed(ASK)[:3], Code.INTERNAL, one, {}),
                (prefixed(ASK) * 2, Code.INTERNAL, one, {}),
                (b"\2" + prefixed(ASK)[1:], Code.INTERNAL, "compressed-flag", {}),
                (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED, "4294967295 bytes is larger than 2147483647", {}),
                (prefixed(ASK, packed=True), Code.INTERNAL, "without grpc-encoding", {}),
                (prefixed(ASK, True), Code.UNIMPLEMENTED, "'snappy' are not read", {"grpc_encoding": "snappy"}),
                (prefixed(ASK, True), Code.INTERNAL, "is no gzip", {"grpc_encoding": "gzip"}),
                (prefixed(gzip.compress(ASK)[:-9], True), Code.INTERNAL, "cut off", {"grpc_encoding": "gzip"}),
                (prefixed(gzip.compress(ASK), True), Code.OK, "", {"grpc_encoding": "gzip"}),
                (prefixed(zlib.compress(ASK), True), Code.OK, "", {"grpc_encoding": "deflate"}),
                (prefixed(ASK), Code.OK, "", {"grpc_encoding": "gzip"}),
                (bomb, Code.RESOURCE_EXHAUSTED, "more than 4194304 bytes when unpacked", {"grpc_encoding": "gzip"}),
                (prefixed(ASK), Code.UNIMPLEMENTED, "Method not found: /no/Method", {"path": "/no/Method"}),
                (prefixed(ASK), Code.INTERNAL, "is no time", {"grpc_timeout": "5"}),
                (prefixed(ASK), Code.INTERNAL, "is no time", {"grpc_timeout": "123456789S"}),
                (prefixed(ASK), Code.RESOURCE_EXHAUSTED, "the limit is 65536", {"long": "x" * 70_000}),
                (prefixed(ASK), Code.OK, "", {"trace_bin": "nobody reads it"}),
                (prefixed(ASK), Code.OK, "", {"kind": "application/grpc+proto", "grpc_timeout": "9S"}),
                (prefixed(b"\xff"), Code.INTERNAL, "failed to parse the request", {"path": READY}),
            )):  # fmt: skip
                got = await status(wire, 3 + 2 * nth, sent, **head)
                assert got[0] is code and text in got[1], (nth, got)

    run(test())


def test_a_client_that_asks_for_a_method_that_is_not_here_is_told_so_as_often_as_it_asks(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {}) as client:
            call = client.channel.unary_unary("/no/Method")
            for _ in range(50):
                codes = await asyncio.gather(*(code_of(call(bytes(40_000))) for _ in range(50)))
                assert set(codes) == {Code.UNIMPLEMENTED}

    run(test())


async def code_of(call) -> Code:
    return await call.code()


def test_what_is_no_call_gets_a_status_of_http(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {}) as client, wire_to(client.address) as wire:
            wire.send(wire.headers(1, fields(method="GET"), "END_STREAM"))
            assert (await outcome(wire, 1))[0] == {b":status": b"405"}
            wire.send(wire.headers(3, fields(kind="application/json"), "END_STREAM"))
            assert (await outcome(wire, 3))[0] == {b":status": b"415"}

    run(test())


def test_a_message_that_trickles_in_is_given_up_and_an_idle_stream_is_not(tmp_path):
    async def test():
        serving = grpc_serving(tmp_path, {"simple": zoo.simple()}, receive_timeout_s=1.5)
        async with serving as client, wire_to(client.address) as wire:
            wire.send(wire.headers(1, fields(STREAM)), DataFrame(1, prefixed(ASK)))
            wire.send(wire.headers(3, fields()))

            async def trickle():
                for nth in range(100):
                    wire.send(DataFrame(3, prefixed(ASK)[nth : nth + 1]))
                    await asyncio.sleep(0.1)

            dripping = asyncio.create_task(trickle())
            headers, _ = await outcome(wire, 3)
            dripping.cancel()
            assert headers[b"grpc-status"] == b"4"
            assert b"did not arrive within 1.5 s" in headers[b"grpc-message"]
            wire.send(DataFrame(1, prefixed(ASK), flags=["END_STREAM"]))
            headers, data = await outcome(wire, 1)
            assert headers[b"grpc-status"] == b"0" and len(data) > 100

    run(test())


def test_the_deadline_of_a_call_ends_also_what_knows_none(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {}) as client:
            client.timeout = None
            async with wire_to(client.address) as wire:
                check = prefixed(message("grpc.health.v1.HealthCheckRequest")().SerializeToString())
                wire.send(wire.headers(1, fields(f"/{HEALTH}/Watch", grpc_timeout="300m")), DataFrame(1, check))
                headers, data = await outcome(wire, 1)
                assert (headers[b"grpc-status"], headers[b"grpc-message"]) == (b"4", b"Deadline Exceeded")
                assert data  # the state was told before

    run(test())


def test_large_tensors_travel_both_ways_and_texts_of_errors_in_any_script(tmp_path):
    async def test():
        models = {"same": zoo.identity(onnx.TensorProto.FLOAT)}
        async with grpc_serving(tmp_path, models, slot_bytes=256 << 20) as client:
            array = np.random.default_rng(0).random((8, 1_500_000), np.float32)  # 48 MB
            [name] = [spec.name for spec in client.serving.table.resolve("same", None).signature.inputs]
            [answer] = arrays(await client.infer("same", {name: array})).values()
            assert answer.tobytes() == array.tobytes()
            with fails(Code.NOT_FOUND, "'модель 模型 100%' is not found"):
                await client.infer("модель 模型 100%", {})

    run(test())


def test_a_client_that_reads_no_answers_of_its_stream_holds_back_only_itself(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}) as client, wire_to(client.address) as wire:
            wire.send(wire.headers(1, fields(STREAM)))
            room = sent = 4 << 20
            for _ in range(sent // 16_380):
                wire.send(DataFrame(1, prefixed(ASK) * (16_380 // len(prefixed(ASK)))))
                room -= len(prefixed(ASK)) * (16_380 // len(prefixed(ASK)))
            assert room >= 0
            await until(lambda: client.serving.statistics is not None)
            for _ in range(3):
                await client.infer("simple", INPUTS)
            wire.send(RstStreamFrame(1, 8))
            await until(lambda: client.serving.admission.inflight == 0)

    run(test())


def test_cancelled_calls_leave_nothing_under_way(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}) as client:
            async with grpc.aio.insecure_channel(client.address, options=NO_LIMIT) as channel:
                call = channel.unary_unary(INFER)
                for nth in range(200):
                    asked = call(ASK)
                    await asyncio.sleep(0.0005 * (nth % 5))
                    asked.cancel()
                assert len(await call(ASK)) > 100
            await until(lambda: client.serving.admission.inflight == 0)

    run(test())


def heading(*more: tuple[bytes, bytes]) -> Headers:
    fixed = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/m"), (b"content-type", b"application/grpc"))
    return Headers((*fixed, *more))


def test_metadata_is_read_as_the_protocol_writes_it():
    rpcs = {b"/m": Rpc()}
    head = head_of(heading((b"a", b"1"), (b"a", b"2"), (b"k-bin", b"AP8"), (b"grpc-timeout", b"20m")), rpcs)
    assert (head.metadata["a"], head.metadata["k-bin"], head.timeout_s) == ("1", "AP8", 0.02)
    for unit, expected in {b"1H": 3600, b"2M": 120, b"3S": 3, b"4m": 0.004, b"5u": 5e-6, b"6n": 6e-9}.items():
        assert head_of(heading((b"grpc-timeout", unit)), rpcs).timeout_s == pytest.approx(expected)
    with pytest.raises(Refused) as refused:
        head_of(heading((b"grpc-timeout", b"-1S")), rpcs)
    assert refused.value.code is Ours.INTERNAL
    assert percent_encoded("100% é\n") == b"100%25 %C3%A9%0A"
    assert limits.MAX_STREAMS >= 1000

"""Requests are cut by hand: whatever the bytes, the pieces say what protobuf's own parser reads."""

from __future__ import annotations

import random

import pytest

from gateway.errors import BadRequest
from gateway.grpc import codec, wire
from gateway.grpc.messages import DecodeError, message

Request, Response = message("ModelInferRequest"), message("ModelInferResponse")


def made(seed: int) -> bytes:
    rng = random.Random(seed)
    request = Request(model_name="m", model_version=rng.choice(["", "1"]), id=rng.choice(["", "é", "x" * 200]))
    for nth in range(rng.randint(0, 3)):
        given = request.inputs.add(name=f"i{nth}", datatype="FP32", shape=[1, rng.randint(0, 2**40)])
        given.parameters["p"].int64_param = rng.randint(-5, 5)
        request.raw_input_contents.append(rng.randbytes(rng.choice([0, 1, 127, 128, 300, 20_000])))
    request.parameters["priority"].uint64_param = rng.randint(0, 2**64 - 1)
    serialized: bytes = request.SerializeToString()
    return serialized


def agrees(data: bytes) -> None:
    try:
        whole = Request.FromString(data)
    except DecodeError:
        with pytest.raises(BadRequest):
            codec.decode(data)
        return
    head, request_id, raw = wire.cut(data)
    parsed = Request.FromString(head)
    assert (parsed.id, len(parsed.raw_input_contents)) == ("", 0)
    parsed.id = request_id.decode()
    parsed.raw_input_contents.extend(bytes(piece) for piece in raw)
    assert parsed == whole


def test_the_pieces_of_a_message_are_the_message():
    for seed in range(300):
        agrees(made(seed))


def test_broken_and_strange_bytes_are_read_like_protobuf_reads_them():
    for seed in range(3000):
        rng = random.Random(seed)
        data = bytearray(made(seed % 50)[:600])
        for _ in range(rng.randint(0, 3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        agrees(bytes(data[: rng.randint(0, len(data))]))
        agrees(rng.randbytes(rng.randint(0, 40)))


def test_an_answer_put_together_is_the_answer_serialized():
    whole = Response(model_name="m", id="é", raw_output_contents=[b"", b"x" * 127, b"y" * 128, b"z" * 20_000])
    head = Response(model_name="m").SerializeToString()
    assert Response.FromString(wire.joined(head, "é".encode(), list(whole.raw_output_contents))) == whole

"""The same question over HTTP binary, HTTP JSON and gRPC: the same bits, and everyone their own answer.

FORGEWAY_REQUESTS says how many are asked at once from many clients (default 3000).
"""

import asyncio
import itertools
import os
from collections import Counter

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc
import tritonclient.http.aio as http

REQUESTS = int(os.environ.get("FORGEWAY_REQUESTS", "3000"))
CLIENTS = 8
"""Of each kind, asking without pause."""
EDGES = [0.0, -0.0, 1 / 3, 1e-45, 3.4028235e38, -1e-38, 16777217.0, 0.1, 2**-126]


class Binary:
    """HTTP, tensors as bytes."""

    binary, library, name = True, http, "HTTP binary"

    def __init__(self, http_address, grpc_address):
        self.client = http.InferenceServerClient(http_address)

    async def ask(self, model, inputs, outputs):
        given = []
        for name, (datatype, value) in inputs.items():
            given.append(self.library.InferInput(name, list(value.shape), datatype))
            options = {} if self.library is grpc else {"binary_data": self.binary}
            given[-1].set_data_from_numpy(value, **options)
        result = await self.client.infer(model, given, outputs=[self.wanted(name) for name in outputs])
        return [result.as_numpy(name) for name in outputs]

    def wanted(self, name):
        return http.InferRequestedOutput(name, binary_data=self.binary)


class Json(Binary):
    """HTTP, tensors as numbers in JSON."""

    binary, name = False, "HTTP JSON"


class Rpc(Binary):
    """gRPC."""

    library, name = grpc, "gRPC"

    def __init__(self, http_address, grpc_address):
        self.client = grpc.InferenceServerClient(grpc_address)

    def wanted(self, name):
        return grpc.InferRequestedOutput(name)


KINDS = (Binary, Json, Rpc)


def questions():
    """(model, inputs, outputs) whose answers are compared bit by bit."""
    random = np.random.default_rng(0)
    for rows in (1, 3, 8):
        x = random.standard_normal((rows, 4)).astype(np.float32)
        yield "classes", {"x": ("FP32", x)}, ["y"]
        left, right = random.integers(-(2**31), 2**31, (2, rows, 16)).astype(np.int32)
        yield "simple", {"INPUT0": ("INT32", left), "INPUT1": ("INT32", right)}, ["OUTPUT0", "OUTPUT1"]
    for datatype, dtype in {"FP32": np.float32, "FP64": np.float64}.items():
        yield f"identity_{datatype.lower()}", {"INPUT0": (datatype, np.array([EDGES], dtype))}, ["OUTPUT0"]
    for datatype, dtype in {"UINT64": np.uint64, "INT64": np.int64, "UINT8": np.uint8}.items():
        limits = np.iinfo(dtype)
        yield (
            f"identity_{datatype.lower()}",
            {"INPUT0": (datatype, np.array([[limits.min, limits.max, 1, 7]], dtype))},
            ["OUTPUT0"],
        )
    yield "identity_bool", {"INPUT0": ("BOOL", np.array([[True, False, True]]))}, ["OUTPUT0"]
    words = np.array([["", "a", "zwölf", "\u6f22\U0001f600", 'quote " and \\ and \n']], np.object_)
    yield "simple_identity", {"INPUT0": ("BYTES", words)}, ["OUTPUT0"]


def bits(value):
    if value.dtype == np.object_:
        return [item if isinstance(item, bytes) else item.encode() for item in value.ravel()]
    return (value.dtype.str, value.shape, value.tobytes())


@pytest.mark.parametrize(
    "question", [pytest.param(q, id=f"{q[0]}-{next(iter(q[1].values()))[1].shape[0]}") for q in questions()]
)
def test_the_same_bits_over_every_protocol(http_address, grpc_address, question):
    async def walk():
        asking = [kind(http_address, grpc_address) for kind in KINDS]
        try:
            return [[bits(value) for value in await one.ask(*question)] for one in asking]
        finally:
            for one in asking:
                await one.client.close()

    binary, json, rpc = asyncio.run(walk())
    assert binary == rpc
    assert binary == json


def test_everyone_gets_their_own_answer(http_address, grpc_address):
    """Each request asks about numbers of its own, in one to four rows, so an answer of another would show."""
    numbers, answered = itertools.count(), Counter()

    async def keep_asking(asking):
        for number in numbers:
            if number >= REQUESTS:
                return
            rows = number % 4 + 1
            left = np.arange(rows * 16, dtype=np.int32).reshape(rows, 16) + number * 1000
            right = np.full((rows, 16), number, np.int32)
            total, difference = await asking.ask(
                "simple", {"INPUT0": ("INT32", left), "INPUT1": ("INT32", right)}, ["OUTPUT0", "OUTPUT1"]
            )
            assert (total == left + right).all() and (difference == left - right).all(), (asking.name, number)
            answered[asking.name] += 1

    async def walk():
        asking = [kind(http_address, grpc_address) for kind in KINDS for _ in range(CLIENTS)]
        try:
            await asyncio.gather(*(keep_asking(one) for one in asking))
        finally:
            for one in asking:
                await one.client.close()

    asyncio.run(walk())
    print(f"{sum(answered.values())} requests, every one its own answer: {dict(answered)}")
    assert sum(answered.values()) == REQUESTS and min(answered[kind.name] for kind in KINDS) > 0

"""What is remembered of requests that come again: the same answers as without it, never those of another request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import uvicorn
from onnx.reference import ReferenceEvaluator
from uvicorn.server import ServerState

from gateway.fastlane import FastLane
from gateway.httpd.connection import Connection
from gateway.httpd.heads import FIELDS
from gateway.serve import Serving
from model_store.datatypes import v2_name
from tests import zoo
from tests.gateway.engines import deploy, engine

Answered = tuple[int, dict[str, str], bytes]


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not for the application")


def header(datatype: str = "FP32", shape: tuple[int, ...] = (1, 64), nbytes: int | None = None, **more: Any) -> bytes:
    size = int(np.prod(shape)) * 4 if nbytes is None else nbytes
    given = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}, **more}).encode()


async def ask(serving: Serving, model: str, head: bytes, tensor: bytes, **headers: str) -> Answered:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"inference-header-content-length", b"%d" % len(head)))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": head + tensor, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": f"/v2/models/{model}/infer", "headers": raw}
    await FastLane(nothing, serving)(scope, receive, send)
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], fields, b"".join(bytes(message["body"]) for message in sent[1:])


def told(answer: Answered) -> tuple[dict[str, Any], np.ndarray]:
    status, headers, body = answer
    assert status == 200, body
    assert headers["content-length"] == str(len(body))
    at = int(headers["inference-header-content-length"])
    text = json.loads(body[:at])
    return text, np.frombuffer(body[at:], np.float32).reshape(text["outputs"][0]["shape"])


def serve(test: Callable[[Serving], Awaitable[None]]) -> None:
    async def run() -> None:
        async with engine() as serving:
            await test(serving)

    asyncio.run(asyncio.wait_for(run(), 60))


def expected(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0])


def test_two_models_that_get_the_same_header_bytes_answer_for_themselves(tmp_path: Path) -> None:
    models = {"a": zoo.mlp(seed=1), "b": zoo.mlp(seed=2)}
    rows = np.random.default_rng(0).standard_normal((20, 1, 64), dtype=np.float32)

    async def test(serving: Serving) -> None:
        for name, model in models.items():
            await deploy(serving, name, model, tmp_path)

        async def check(name: str, x: np.ndarray) -> None:
            text, y = told(await ask(serving, name, header(), x.tobytes()))
            assert text["model_name"] == name
            np.testing.assert_allclose(y, expected(models[name], x), rtol=1e-4, atol=1e-5)

        for name in ("a", "b", "a", "b"):
            await check(name, rows[0])
        await asyncio.gather(*(check(name, x) for x in rows for name in models))

    serve(test)


def test_shapes_that_take_turns_keep_their_own_headers_and_answers(tmp_path: Path) -> None:
    model = zoo.mlp()
    rows = np.random.default_rng(0).standard_normal((9, 64), dtype=np.float32)

    async def test(serving: Serving) -> None:
        await deploy(serving, "m", model, tmp_path)
        for count in (1, 3, 9, 1, 3, 9, 3, 1):
            x = rows[:count]
            text, y = told(await ask(serving, "m", header(shape=x.shape), x.tobytes()))
            assert text["outputs"][0]["shape"] == [count, 10]
            assert text["outputs"][0]["parameters"] == {"binary_data_size": 40 * count}
            np.testing.assert_allclose(y, expected(model, x), rtol=1e-4, atol=1e-5)

    serve(test)


def test_a_replaced_model_and_another_variant_are_told_as_they_are(tmp_path: Path) -> None:
    x = np.ones((1, 64), np.float32)

    async def test(serving: Serving) -> None:
        for seed, variants in ((1, {}), (2, {"fast": {1: 9.0}}), (3, {})):
            model = zoo.mlp(seed=seed)
            (folder := tmp_path / str(seed)).mkdir()
            await deploy(serving, "m", model, folder, variants)
            for _ in range(3):
                answer = await ask(serving, "m", header(), x.tobytes())
                text, y = told(answer)
                np.testing.assert_allclose(y, expected(model, x), rtol=1e-4, atol=1e-5)
                assert text["parameters"]["variant"] == ("fast" if variants else "reference")
                assert answer[1]["forgeway-variant"] == text["parameters"]["variant"]

    serve(test)


def test_an_answer_to_a_known_header_is_the_first_one_byte_for_byte(tmp_path: Path) -> None:
    x = np.ones((1, 64), np.float32).tobytes()

    async def test(serving: Serving) -> None:
        await deploy(serving, "m", zoo.mlp(), tmp_path)
        first, *others = [await ask(serving, "m", header(), x, accept_encoding="identity") for _ in range(3)]
        for status, headers, body in others:
            assert (status, body) == (first[0], first[2])
            assert list(headers) == list(first[1])
            assert {**headers, "server-timing": ""} == {**first[1], "server-timing": ""}
        assert len(serving.batchers["m", "1"].check.known) == 1

    serve(test)


def test_ids_are_given_back_each_to_its_own(tmp_path: Path) -> None:
    x = np.ones((1, 64), np.float32).tobytes()

    async def test(serving: Serving) -> None:
        await deploy(serving, "m", zoo.mlp(), tmp_path)
        for mine in ("one", "two", "one", ""):
            text, _ = told(await ask(serving, "m", header(id=mine), x))
            assert text.get("id", "") == mine

    serve(test)


@pytest.mark.parametrize("cut", [-4, 4])
def test_a_known_header_with_another_number_of_bytes_behind_it_is_refused_as_ever(tmp_path: Path, cut: int) -> None:
    x = np.ones((1, 64), np.float32).tobytes()
    wrong = x[:cut] if cut < 0 else x + bytes(cut)

    async def test(serving: Serving) -> None:
        await deploy(serving, "m", zoo.mlp(), tmp_path)
        before = await ask(serving, "m", header(), wrong)
        assert (await ask(serving, "m", header(), x))[0] == 200
        after = await ask(serving, "m", header(), wrong)
        assert before[0] == after[0] == 400
        assert before[2] == after[2]

    serve(test)


def test_several_inputs_are_found_whatever_their_order_in_the_header(tmp_path: Path) -> None:
    model = zoo.multi_io()
    given = zoo.random_inputs(model, 2, seed=3)

    def body(names: list[str]) -> tuple[bytes, bytes]:
        inputs = [
            {
                "name": name,
                "shape": given[name].shape,
                "datatype": v2_name(given[name].dtype),
                "parameters": {"binary_data_size": given[name].nbytes},
            }
            for name in names
        ]
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        return head, b"".join(given[name].tobytes() for name in names)

    async def test(serving: Serving) -> None:
        await deploy(serving, "m", model, tmp_path)
        bodies = []
        for names in (list(given), list(reversed(given)), list(given), list(reversed(given))):
            status, _, answer = await ask(serving, "m", *body(names))
            assert status == 200, answer
            bodies.append(answer)
        assert len(serving.batchers["m", "1"].check.known) == 2
        assert len(set(bodies)) == 1

    serve(test)


class Seen:
    """An application that tells what it was given."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        answer = body + b"!"
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def answers_to(app: Any, *reads: list[bytes]) -> list[bytes]:
    """What a connection answers: each list is sent piece by piece, the next one once an answer has come."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, server_header=False)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(config=config, server_state=ServerState(), app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    answers = []
    for pieces in reads:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        answers.append(await asyncio.wait_for(reader.readuntil(b"!"), 10))
    writer.close()
    server.close()
    return answers


def post(path: str, body: bytes, *lines: str) -> bytes:
    head = (f"POST {path} HTTP/1.1", "host: x", *lines, f"content-length: {len(body)}", "", "")
    return "\r\n".join(head).encode() + body


def test_a_head_that_comes_again_is_told_as_the_parser_told_it_and_with_its_own_body() -> None:
    seen, path = Seen(), "/v2/models/a%20b/infer?x=1"
    bodies = [b"first", b"other", b"third"]
    reads = [[post(path, body, "X-Mine: 7", "x-mine: 8")] for body in bodies]
    answers = asyncio.run(answers_to(seen, *reads))
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers] == [b"first!", b"other!", b"third!"]
    known = [scope.pop(FIELDS, None) for scope in seen.scopes]
    assert known[0] is None and known[1] == dict(seen.scopes[0]["headers"])
    assert seen.scopes[0] == seen.scopes[1] == seen.scopes[2]
    assert seen.scopes[1]["path"] == "/v2/models/a b/infer" and seen.scopes[1]["query_string"] == b"x=1"


def test_what_follows_a_known_head_in_pieces_or_at_once_is_still_told_apart() -> None:
    seen, path = Seen(), "/v2/models/m/infer"
    whole = post(path, b"abcde")
    reads = [[whole], [whole], [whole[:-3], whole[-3:]], [whole[:9], whole[9:]], [b"\r\n", whole], [whole]]
    answers = asyncio.run(answers_to(seen, *reads))
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers] == [b"abcde!"] * 6

    async def pipelined() -> list[bytes]:
        both = post(path, b"abcde") + post(path, b"fghij")
        return await answers_to(seen, [both], [b""], [whole])

    answers = asyncio.run(pipelined())
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in answers] == [b"abcde!", b"fghij!", b"abcde!"]


def test_whether_the_connection_stays_open_is_remembered_too() -> None:
    seen, path = Seen(), "/v2/models/m/infer"
    for said, left in ((b"keep-alive", b""), (b"close", b"connection: close\r\n")):
        whole = post(path, b"abc", f"connection: {said.decode()}")
        first, known = (asyncio.run(answers_to(seen, [whole]))[0] for _ in range(2))
        assert FIELDS in seen.scopes[-1] and first == known and left in known.lower()


def test_requests_to_other_paths_and_unusual_ones_are_parsed_each_time() -> None:
    seen = Seen()
    reads = [
        [request]
        for request in (
            post("/v2/models/m", b"abc"),
            post("/v2/models/m/infer", b"abc", "upgrade: h2c"),
            post("/v2/models/m/infer", b"abc", "x-long: " + "a" * 3000),
        )
        for _ in range(2)
    ]
    answers = asyncio.run(answers_to(seen, *reads))
    assert len(answers) == 6 and not any(FIELDS in scope for scope in seen.scopes)

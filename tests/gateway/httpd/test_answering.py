"""Answers on the wire: whole ones in one piece, all others byte for byte as the protocol layer sends them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.httpd.connection import Connection

SIZED = [(b"content-type", b"text/plain"), (b"content-length", b"6"), (b"x-mine", b"1")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    while (await receive()).get("more_body"):
        pass
    headers = SIZED if path != "/stream" else [(b"content-type", b"text/plain")]
    if path == "/injected":
        headers = [*SIZED, (b"x-bad", b"a\r\nset-cookie: b")]
    await send({"type": "http.response.start", "status": 404 if path == "/missing" else 200, "headers": headers})
    if path == "/early":
        raise RuntimeError("after the head")
    if path == "/short":
        await send({"type": "http.response.body", "body": b"abc"})
    elif path in ("/parts", "/stream"):
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"def"})
    else:
        await send({"type": "http.response.body", "body": memoryview(b"abcdef")})


async def exchange(*requests: bytes) -> list[bytes]:
    """What a real connection receives, read by read, for requests sent one after the other was answered."""
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, server_header=False)
    config.load()
    state = ServerState()
    server = await loop.create_server(
        lambda: Connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    pieces = []
    for request in requests:
        writer.write(request)
        answer = b""
        while not answer.endswith((b"abcdef", b"0\r\n\r\n")) or not answer:
            if not (piece := await asyncio.wait_for(reader.read(65536), 10)):
                break
            answer += piece
        pieces.append(answer)
    writer.close()
    server.close()
    return pieces


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "host: x", *lines, "", "")).encode()


def test_a_whole_answer_carries_its_head_its_body_and_leaves_the_connection_open():
    answers = asyncio.run(exchange(get("/"), get("/missing"), get("/")))
    head, _, body = answers[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"content-type: text/plain\r\ncontent-length: 6\r\nx-mine: 1")
    assert body == b"abcdef"
    assert answers[1].startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert answers[2].endswith(b"\r\n\r\nabcdef")


def test_what_comes_in_pieces_goes_out_as_ever():
    answers = asyncio.run(exchange(get("/stream"), get("/")))
    assert b"transfer-encoding: chunked" in answers[0]
    assert answers[0].endswith(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
    assert answers[1].endswith(b"\r\n\r\nabcdef")
    (parts,) = asyncio.run(exchange(get("/parts")))
    assert parts.endswith(b"\r\n\r\nabcdef")


def test_a_connection_that_is_to_be_closed_is_closed():
    answers = asyncio.run(exchange(get("/", "connection: close"), b""))
    assert b"connection: close\r\n" in answers[0]
    assert answers == [answers[0], b""]


@pytest.mark.parametrize("path", ["/early", "/short", "/injected"])
def test_a_broken_answer_ends_the_connection_and_nothing_of_it_is_believable(path):
    (answer,) = asyncio.run(exchange(get(path)))
    assert b"set-cookie" not in answer
    assert not answer.endswith(b"abcdef")


def test_the_answer_to_head_has_no_body():
    async def test() -> bytes:
        return (await exchange(get("/", "connection: close", method="HEAD")))[0]

    assert asyncio.run(test()).endswith(b"\r\n\r\n")

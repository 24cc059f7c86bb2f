"""Long bodies that are read where they stay: the same answers as piece by piece, and no other way in or out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from gateway.httpd.arriving import blank
from gateway.httpd.connection import Connection
from gateway.httpd.heads import FIELDS

LENGTH = 300_000
PATH = "/v2/models/long/infer"


class Seen:
    """An application that tells how each body came, and refuses what it is told to."""

    def __init__(self) -> None:
        self.messages: list[int] = []
        self.remembered: list[bool] = []
        self.status = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pieces, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            pieces.append(message["body"])
            more = message["more_body"]
        self.messages.append(len(pieces))
        self.remembered.append(FIELDS in scope)
        body = b"".join(pieces)
        answer = b"%d %d" % (len(body), sum(body[::997]))
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Bench:
    """A connection to a server of the application, and the server's end of it."""

    def __init__(self, app: Seen, state: ServerState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.app, self.state, self.reader, self.writer = app, state, reader, writer

    @property
    def connection(self) -> Connection:
        (found,) = self.state.connections
        assert isinstance(found, Connection)
        return found

    async def ask(self, body: bytes, cuts: tuple[int, ...] = (), name: str = "x") -> bytes:
        """The answer to a request that is sent in pieces, cut at these places."""
        request = post(body, name)
        for start, end in zip((0, *cuts), (*cuts, len(request)), strict=True):
            self.writer.write(request[start:end])
            await self.writer.drain()
            await asyncio.sleep(0.005 if cuts else 0)
        return await self.answer()

    async def answer(self) -> bytes:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return await asyncio.wait_for(self.reader.readexactly(length), 10)


def post(body: bytes, name: str = "x", more: str = "") -> bytes:
    return f"POST {PATH} HTTP/1.1\r\nhost: {name}\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


def told(body: bytes) -> bytes:
    return b"%d %d" % (len(body), sum(body[::997]))


def served(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        app, state = Seen(), ServerState()
        config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, server_header=False)
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1 << 20)
        await test(Bench(app, state, reader, writer))
        writer.close()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_a_body_is_the_same_however_it_is_cut_and_comes_whole_once_its_head_is_welcome() -> None:
    chance = random.Random(0)

    async def test(bench: Bench) -> None:
        for turn in range(12):
            body = chance.randbytes(LENGTH)
            cuts = sorted(chance.sample(range(1, LENGTH), turn))
            assert await bench.ask(body, tuple(cuts), "cut") == told(body)
        assert bench.app.remembered == [False] + [True] * 11
        assert bench.app.messages[1:] == [1] * 11

    served(test)


def test_the_next_request_may_follow_at_once() -> None:
    async def test(bench: Bench) -> None:
        body, other = bytes(LENGTH), b"\x07" * LENGTH
        assert await bench.ask(body, (), "next") == told(body)
        bench.writer.write(post(body, "next")[:1000])
        await asyncio.sleep(0.02)
        bench.writer.write(post(body, "next")[1000:] + post(other, "next") + post(b"short", "next"))
        assert [await bench.answer() for _ in range(3)] == [told(body), told(other), told(b"short")]

    served(test)


def test_clients_that_close_after_each_request_are_remembered_too_and_their_connections_closed() -> None:
    async def test(bench: Bench) -> None:
        for turn in range(4):
            body = bytes([turn]) * (LENGTH if turn < 3 else 10)
            reader, writer = await asyncio.open_connection(*bench.writer.get_extra_info("peername"))
            writer.write(post(body, "closing", "connection: close\r\n"))
            answer = await asyncio.wait_for(reader.read(), 10)
            assert answer.endswith(told(body)) and answer.lower().count(b"connection: close") == 1
            writer.close()
        assert bench.app.remembered == [False, True, True, False]

    served(test)


def test_what_was_refused_is_read_piece_by_piece_until_it_is_let_in() -> None:
    async def test(bench: Bench) -> None:
        bench.app.status = 401
        for _ in range(3):
            await bench.ask(bytes(LENGTH), (), "refused")
        bench.app.status = 200
        await bench.ask(bytes(LENGTH), (), "refused")
        assert bench.app.remembered == [False] * 4
        await bench.ask(bytes(LENGTH), (1000,), "refused")
        assert bench.app.remembered[-1]

    served(test)


def test_a_body_that_stops_arriving_is_cut_off_and_one_that_arrives_slowly_is_not() -> None:
    async def test(bench: Bench) -> None:
        await bench.ask(bytes(LENGTH), (), "slow")
        request = post(bytes(LENGTH), "slow")
        bench.writer.write(request[:200])
        await asyncio.sleep(0.02)
        begun = bench.connection.receiving_since
        assert begun is not None
        bench.writer.write(request[200:100_000])
        await asyncio.sleep(0.02)
        bench.connection.sweep(begun + 100, 60.0)
        assert not bench.connection.transport.is_closing()
        bench.connection.sweep(begun + 200, 60.0)
        head = await asyncio.wait_for(bench.reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 408") and len(bench.app.messages) == 1

    served(test)


def test_a_body_under_way_is_still_answered_when_the_server_goes() -> None:
    async def test(bench: Bench) -> None:
        await bench.ask(bytes(LENGTH), (), "going")
        request = post(bytes(LENGTH), "going")
        bench.writer.write(request[:200])
        await asyncio.sleep(0.02)
        bench.connection.shutdown()
        bench.writer.write(request[200:])
        rest = await asyncio.wait_for(bench.reader.read(), 10)
        assert b"connection: close" in rest and rest.endswith(told(bytes(LENGTH)))

    served(test)


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind() -> None:
    async def test(bench: Bench) -> None:
        await bench.ask(bytes(LENGTH), (), "gone")
        bench.writer.write(post(bytes(LENGTH), "gone")[:1000])
        await asyncio.sleep(0.02)
        bench.writer.close()
        await asyncio.sleep(0.05)
        assert not bench.state.connections and len(bench.app.messages) == 1

    served(test)


def test_blank_bytes_become_what_is_written_to_them() -> None:
    made, room = blank(1000)
    room[:] = bytes(range(250)) * 4
    assert made == bytes(range(250)) * 4 and len(room) == 1000 and hash(made) == hash(bytes(range(250)) * 4)

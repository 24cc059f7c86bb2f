"""A small application on the connections of gateway/http2, on a free port, and the bare bytes of a client for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, SettingsFrame

from gateway.http2 import frames
from gateway.http2.connection import Connection
from gateway.http2.frames import block
from gateway.http2.headers import Headers, encode
from gateway.http2.stream import Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = block(encode((b":status", b"200")))
TAIL = block(encode((b"done", b"yes")), end=True)
ECHO = [(":method", "POST"), (":scheme", "http"), (":path", "/echo")]
HOLD = [(":method", "POST"), (":scheme", "http"), (":path", "/hold")]


class Echoing:
    """`/echo` answers with the body once it is complete; `/hold` takes nothing and never answers."""

    def __init__(self, app: Application, stream: Stream, path: bytes) -> None:
        self.app, self.stream, self.path = app, stream, path
        self.body = bytearray()
        self.state = "open"
        app.open.add(self)

    def data(self, piece: bytes) -> None:
        assert self.state == "open"
        self.body += piece
        if self.path == b"/echo":
            self.stream.consumed(len(piece))

    def end(self) -> None:
        assert self.state == "open"
        if self.path == b"/echo":
            self.app.open.discard(self)
            self.state = "answered"
            self.stream.answer(HEAD, (bytes(self.body),), TAIL)

    def gone(self) -> None:
        assert self.state in ("open", "answered")
        self.state = "gone"
        self.app.open.discard(self)
        self.app.withdrawn += 1

    def second(self, now: float, limit_s: float) -> None: ...


class Application:
    """What is served, and what it was told."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.open: set[Echoing] = set()
        self.withdrawn = 0
        self.port = 0

    def connection(self) -> Connection:
        return Connection(self._opened, self.connections)

    def _opened(self, stream: Stream, headers: Headers) -> Echoing:
        return Echoing(self, stream, dict(headers.fields)[b":path"])

    def clean(self) -> bool:
        """Whether nothing of any stream or connection is left."""
        return not self.open and not self.connections


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Application]:
    app = Application()
    server = await asyncio.get_running_loop().create_server(app.connection, "127.0.0.1", 0)
    app.port = server.sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        server.close()
        for connection in tuple(app.connections):
            connection.abort()


class Wire:
    """A client of bare frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.encoder, self.decoder = Encoder(), Decoder()
        self.seen: list[Frame] = []

    def send(self, *parts: bytes | Frame) -> None:
        self.writer.write(b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts))

    def headers(self, stream: int, fields: Iterable[Any], *flags: str) -> bytes:
        block = self.encoder.encode(fields)
        first, *others = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
        parts: list[Frame] = [HeadersFrame(stream, first, flags=list(flags))]
        parts += [ContinuationFrame(stream, other) for other in others]
        parts[-1].flags.add("END_HEADERS")
        return b"".join(part.serialize() for part in parts)

    async def frame(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        try:
            head = await self.reader.readexactly(9)
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(await self.reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self.seen.append(frame)
        return frame

    async def until(self, kind: type[Frame], stream: int | None = None) -> Any:
        while (frame := await self.frame()) is not None:
            if isinstance(frame, kind) and stream in (None, frame.stream_id):
                return frame
        raise AssertionError(f"no {kind.__name__} came: {self.seen}")

    async def answer(self, stream: int) -> bytes:
        """The body of an answered stream."""
        body = bytearray()
        while (frame := await self.frame()) is not None:
            if frame.stream_id == stream:
                assert type(frame).__name__ in ("HeadersFrame", "DataFrame"), frame
                body += getattr(frame, "data", b"") if type(frame).__name__ == "DataFrame" else b""
                if "END_STREAM" in frame.flags:
                    return bytes(body)
        raise AssertionError(f"stream {stream} was not answered: {self.seen}")


@contextlib.asynccontextmanager
async def connected(app: Application, greeting: bool = True) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
    wire = Wire(reader, writer)
    if greeting:
        wire.send(PREFACE, SettingsFrame(0))
    try:
        yield wire
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def bare(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame that no library would write."""
    return frames.frame(kind, flags, stream, payload)


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


async def until(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass within 5 s")

"""gRPC load from a process of its own: one unary request, sent over and over by a raw HTTP/2 client.

`python -m benchmarks.grpc_load PORT CONNECTIONS STREAMS SECONDS PATH MESSAGE.bin` prints one JSON object. Written here
so that the client costs little: grpcio's own would take a core and hide what is measured. Each connection keeps
STREAMS requests under way. Header blocks are written once, without compression state; of the answers only what counts
is read: did a message come, and did the stream end with grpc-status 0.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.figures import Figures
from benchmarks.load import WARM_UP_S, Answer, rate, until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
_WINDOW = 2**31 - 1
_WINDOW_START = 65_535
_OK = b"grpc-status\x010"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that enters no table (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


class Connection(asyncio.Protocol):
    """Keeps `streams` requests under way until told to stop."""

    def __init__(self, path: str, message: bytes, streams: int, answers: list[Answer]) -> None:
        self.answers = answers
        self.errors = 0
        self.stopping = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer = b""
        block = b"\x83\x86" + literal(b":path", path.encode()) + literal(b":authority", b"127.0.0.1")
        block += literal(b"te", b"trailers") + literal(b"content-type", b"application/grpc")
        self._headers = len(block).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS)), block
        body = b"\x00" + len(message).to_bytes(4, "big") + message
        self._data = len(body).to_bytes(3, "big") + bytes((DATA, END_STREAM)), body
        self._streams, self._next = streams, 1
        self._sent: dict[int, float] = {}
        self._got: set[int] = set()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # No header table: then every header of the answer is in plain sight.
        settings = struct.pack(">HIHI", 1, 0, 4, _WINDOW)
        grow = frame(WINDOW_UPDATE, 0, 0, (_WINDOW - _WINDOW_START).to_bytes(4, "big"))
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + grow)
        self._transport.write(b"".join(self._request() for _ in range(self._streams)))

    def _request(self) -> bytes:
        number, self._next = self._next, self._next + 2
        self._sent[number] = time.perf_counter()
        stream = number.to_bytes(4, "big")
        (head, block), (data_head, body) = self._headers, self._data
        return b"".join((head, stream, block, data_head, stream, body))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, size = 0, len(buffer)
        out = []
        while size - at >= 9:
            end = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if end > size:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            number = int.from_bytes(buffer[at + 5 : at + 9], "big")
            if kind == DATA:
                self._got.add(number)
                if not self.answer:
                    self.answer = bytes(buffer[at + 14 : end])
            elif kind == HEADERS and flags & END_STREAM:
                self._ended(number, _OK in buffer[at + 9 : end])
                if not self.stopping:
                    out.append(self._request())
            elif kind == SETTINGS and not flags & ACK:
                out.append(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                out.append(frame(PING, ACK, 0, buffer[at + 9 : end]))
            elif kind in (RST_STREAM, GOAWAY):
                self.errors += 1
            at = end
        self._buffer = buffer[at:]
        if out:
            self._transport.write(b"".join(out))
        if self.stopping and not self._sent:
            self._transport.close()

    def _ended(self, number: int, ok: bool) -> None:
        now = time.perf_counter()
        self.answers.append(Answer(now, now - self._sent.pop(number)))
        if number not in self._got or not ok:
            self.errors += 1
        self._got.discard(number)

    def connection_lost(self, exc: Exception | None) -> None:
        self.errors += not self.stopping
        if not self.closed.done():
            self.closed.set_result(None)


async def run(port: int, connections: int, streams: int, seconds: float, path: str, message: bytes) -> Figures:
    loop = asyncio.get_running_loop()
    answers: list[Answer] = []
    made = [
        (await loop.create_connection(lambda: Connection(path, message, streams, answers), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await until(answers, connections, WARM_UP_S)
    answers.clear()
    await until(answers, connections * streams * 2 + 1, seconds)
    measured = list(answers)
    for connection in made:
        connection.stopping = True
    await asyncio.wait_for(asyncio.gather(*(connection.closed for connection in made)), 60)
    return Figures.of(
        [answer.seconds for answer in measured],
        rate([answer.at for answer in measured], connections * streams),
        errors=sum(connection.errors for connection in made),
        variants={},
    )


def main() -> None:
    port, connections, streams, seconds, path, message = sys.argv[1:]
    figures = uvloop.run(
        run(int(port), int(connections), int(streams), float(seconds), path, Path(message).read_bytes())
    )
    print(json.dumps(figures.as_dict()))


if __name__ == "__main__":
    main()

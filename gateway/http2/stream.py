"""One stream of a connection: a request and its answer, as whoever answers sees them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from gateway.http2 import limits
from gateway.http2.frames import Block

if TYPE_CHECKING:
    from gateway.http2.streams import Streams


class Receiver(Protocol):
    """Who answers a stream. It is told what arrives, and may use the stream until `gone`."""

    def data(self, piece: bytes) -> None:
        """The next bytes of the request; sooner or later `Stream.consumed` must hear of them."""

    def end(self) -> None:
        """The request is complete."""

    def gone(self) -> None:
        """The stream is over, and not by us: withdrawn, or its connection has ended."""

    def second(self, now: float, limit_s: float) -> None:
        """About a second has passed: end what takes longer than `limit_s` to arrive. `now`: of the event loop."""


class _Nobody:
    """Receives what a stream that is over has no receiver for: the two let go of each other then."""

    def data(self, piece: bytes) -> None: ...

    def end(self) -> None: ...

    def gone(self) -> None: ...

    def second(self, now: float, limit_s: float) -> None: ...


NOBODY = _Nobody()


class Stream:
    __slots__ = (
        "_flushed", "_owed", "_streams", "body", "ended_in", "length", "number", "out", "progress", "receiver",
        "room", "tail", "unread", "watched", "window",
    )  # fmt: skip

    def __init__(self, streams: Streams, number: int, window: int, length: int | None) -> None:
        """`window`: bytes we may send; `length`: bytes the request says it has."""
        self._streams = streams
        self.number = number
        self.window = window
        self.length = length
        self.receiver: Receiver = NOBODY
        self.ended_in = False
        self.body = 0
        """Bytes of the request so far."""
        self.room = limits.STREAM_WINDOW
        """Bytes the client may still send."""
        self.unread = 0
        """Bytes that nobody has taken yet."""
        self._owed = 0
        self.out: deque[memoryview] = deque()
        """What waits to be sent."""
        self.tail: Block | None = None
        """Waits behind `out`, and ends the stream."""
        self.progress = 0
        self.watched = False
        """Whether `progress` counts what was sent since the connection looked last."""
        self._flushed: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        return self._streams.open.get(self.number) is self

    def consumed(self, nbytes: int) -> None:
        """Bytes of the request were taken: the client may send as many again."""
        if not self.open:
            return  # all of it counts as taken
        self.unread -= nbytes
        self._streams.consumed(nbytes)
        self._owed += nbytes
        if self._owed >= limits.STREAM_WINDOW // 4 and not self.ended_in:
            self._streams.grant(self, self._owed)
            self._owed = 0

    def answer(self, head: Block, body: tuple[bytes, ...], tail: Block) -> None:
        """A whole answer, from its headers to its trailers."""
        if self.open:
            self._streams.outbox.answer(self, head, body, tail)

    def start(self, head: Block) -> None:
        """The headers of an answer."""
        if self.open:
            self._streams.outbox.headers(self, head)

    async def send(self, *pieces: bytes) -> None:
        """A part of an answer that has been started. Returns when there is room for the next one."""
        if not self.open:
            return
        self._streams.outbox.send(self, pieces)
        if self.out:
            self._flushed = asyncio.get_running_loop().create_future()
            await self._flushed

    def finish(self, tail: Block) -> None:
        """Trailers, behind what still waits; or headers that are the whole answer."""
        if self.open:
            self._streams.outbox.finish(self, tail)

    def drop(self, tail: Block) -> None:
        """Trailers in place of what still waits."""
        if self.open:
            self._streams.outbox.forget(self)
            self._streams.outbox.finish(self, tail)

    def flushed(self) -> None:
        """Nothing waits any more; by the connection."""
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

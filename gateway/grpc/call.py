"""A call: one stream of HTTP/2, as the handlers of the methods see it.

A method that takes one message runs once its request is complete; one that takes a stream runs from the beginning, and
reads as it likes: what waits for it is bounded by the window of its stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from gateway.grpc import status
from gateway.grpc.errors import Refused
from gateway.grpc.head import Head
from gateway.grpc.packing import INT32_MAX, PREFIX_BYTES, prefix, unpacked, whole_size
from gateway.grpc.status import Code
from gateway.http2 import limits
from gateway.http2.stream import Stream

_GRACE_S = 0.05
"""A handler that knows its deadline answers in better words, and counts the call for what it was."""

_OFF_LOOP_BYTES = 1 << 16
"""Larger messages are unpacked in a thread."""

log = logging.getLogger("forgeway.grpc")


class Arriving:
    """Bytes of the unfinished messages of one connection: together no more than one message may have."""

    __slots__ = ("nbytes",)

    def __init__(self) -> None:
        self.nbytes = 0

    def expect(self, nbytes: int) -> None:
        """Raises Refused."""
        if self.nbytes and self.nbytes + nbytes > INT32_MAX + PREFIX_BYTES:
            raise Refused(Code.RESOURCE_EXHAUSTED, "too large messages at once on one connection")
        self.nbytes += nbytes


class Call:
    """The receiver of a stream, and the `caller` of the handlers."""

    __slots__ = (
        "_arriving", "_arriving_since", "_buffer", "_deadline", "_first", "_got", "_head", "_loop", "_most_unpacked",
        "_started", "_stream", "_task", "_timer", "_unread", "_wake", "_whole",
    )  # fmt: skip

    def __init__(self, stream: Stream, head: Head, most_unpacked: int, arriving: Arriving) -> None:
        self._stream, self._head = stream, head
        self._most_unpacked, self._arriving = most_unpacked, arriving
        self._loop = loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._first = b""
        """The request as long as it is one piece; then it moves to the buffer."""
        self._buffer: bytearray | None = None
        self._whole = 0
        """Bytes of the message that is arriving, with its prefix; 0: not known."""
        self._unread = 0
        """Bytes that arrived and were not granted again."""
        self._wake: asyncio.Future[None] | None = None
        self._started = False
        self._arriving_since, self._got = loop.time(), 0
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if head.timeout_s is not None:
            self._deadline = self._arriving_since + head.timeout_s
            self._timer = loop.call_later(head.timeout_s + _GRACE_S, self._late)
        if head.rpc.stream is not None:
            self._task = loop.create_task(self._run_stream())

    # Caller

    def header(self, name: str) -> str | None:
        return self._head.metadata.get(name)

    def remaining_s(self) -> float | None:
        return None if self._deadline is None else self._deadline - self._loop.time()

    # gateway.http2.stream.Receiver

    def data(self, piece: bytes) -> None:
        self._unread += len(piece)
        self._got += len(piece)
        if self._buffer is not None:
            self._buffer += piece
        elif self._first:
            self._buffer = bytearray(self._first)
            self._buffer += piece
            self._first = b""
        else:
            self._first = piece
        try:
            self._measure()
        except Refused as refused:
            self.refuse(refused)
            return
        if self._complete():
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)
        else:
            self._grant()

    def end(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if self._head.rpc.unary is None:
            return
        given = self._buffer if self._buffer is not None else self._first
        if not self._whole or self._whole != len(given):
            self.refuse(Refused(Code.INTERNAL, "a call of this method brings exactly one whole message"))
            return
        self._task = self._loop.create_task(self._run_unary(self._take()))

    def gone(self) -> None:
        self._over()
        if self._task is not None:
            self._task.cancel()

    def second(self, now: float, limit_s: float) -> None:
        if self._head.rpc.unary is None:
            waits = (self._first or self._buffer) and not self._complete()
        else:
            waits = not self._stream.ended_in
        if not waits or self._got >= limits.LEAST_BYTES:
            self._arriving_since, self._got = now, 0
        elif now - self._arriving_since > limit_s:
            self.refuse(Refused(Code.DEADLINE_EXCEEDED, f"the message did not arrive within {limit_s:g} s"))

    # answering

    def refuse(self, refused: Refused) -> None:
        """End the call with a status, whatever of its answers still waits."""
        self._over()
        self._stream.drop(status.ended(refused.code, refused.text, not self._started))
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run_unary(self, given: tuple[bool, bytes]) -> None:
        try:
            packed, message = given
            if packed:
                message = await self._unpacked(message)
            assert self._head.rpc.unary is not None
            answer = await self._head.rpc.unary(message, self)
            self._over()
            self._stream.answer(status.HEAD, (prefix(len(answer)), answer), status.OK)
        except Refused as refused:
            self.refuse(refused)
        except Exception as exc:
            self._unforeseen(exc)

    async def _run_stream(self) -> None:
        assert self._head.rpc.stream is not None
        answers = self._head.rpc.stream(self._messages(), self)
        try:
            async for answer in answers:
                self._start()
                await self._stream.send(prefix(len(answer)), answer)
            self._start()
            self._over()
            self._stream.finish(status.OK)
        except Refused as refused:
            self.refuse(refused)
        except Exception as exc:
            self._unforeseen(exc)
        finally:
            await answers.aclose()  # type: ignore[attr-defined] # they are generators

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._stream.start(status.HEAD)

    def _unforeseen(self, exc: Exception) -> None:
        log.error("unforeseen error", exc_info=exc)
        self.refuse(Refused(Code.INTERNAL, "internal error"))

    def _late(self) -> None:
        self.refuse(Refused(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _over(self) -> None:
        """Nothing of the call is held any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._forget_message()
        self._first, self._buffer = b"", None

    # messages that arrive

    async def _messages(self) -> AsyncIterator[bytes]:
        """Every message of the client, as they come. Raises Refused for one that is cut off."""
        while True:
            while self._complete():
                packed, message = self._take()
                self._measure()
                if not self._complete():
                    self._grant()
                yield await self._unpacked(message) if packed else message
            if self._stream.ended_in:
                if self._first or self._buffer:
                    raise Refused(Code.INTERNAL, "the last message is cut off")
                return
            self._wake = self._loop.create_future()
            await self._wake

    def _measure(self) -> None:
        """Find out how large the message is that is arriving. Raises Refused."""
        if not self._whole:
            whole = whole_size(self._first if self._buffer is None else self._buffer)
            if whole:
                self._arriving.expect(whole)
                self._whole = whole

    def _complete(self) -> bool:
        """Whether a whole message is here."""
        return 0 < self._whole <= (len(self._first) if self._buffer is None else len(self._buffer))

    def _take(self) -> tuple[bool, bytes]:
        """Cut off the message that is complete: compressed?, and its bytes."""
        size = self._whole
        if self._buffer is None:
            packed, message = bool(self._first[0]), self._first[PREFIX_BYTES:size]
            self._first = self._first[size:]
        else:
            packed = bool(self._buffer[0])
            with memoryview(self._buffer) as view:
                message = bytes(view[PREFIX_BYTES:size])
            del self._buffer[:size]
        self._forget_message()
        return packed, message

    def _forget_message(self) -> None:
        self._arriving.nbytes -= self._whole
        self._whole = 0

    def _grant(self) -> None:
        """The client may send on: nothing that is complete waits to be taken."""
        self._stream.consumed(self._unread)
        self._unread = 0

    async def _unpacked(self, message: bytes) -> bytes:
        if len(message) < _OFF_LOOP_BYTES:
            return unpacked(message, self._head.encoding, self._most_unpacked)
        return await asyncio.to_thread(unpacked, message, self._head.encoding, self._most_unpacked)

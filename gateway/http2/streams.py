"""The streams of one connection, and what arrives on them (RFC 9113, sections 5.1, 6.1 to 6.4 and 8.1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.http2 import frames, limits
from gateway.http2.frames import ConnectionFailed, StreamFailed
from gateway.http2.headers import HeaderReader, Headers
from gateway.http2.limits import Patience
from gateway.http2.outbox import Outbox
from gateway.http2.stream import NOBODY, Receiver, Stream

_MOST_LEFT = 1024

Opened = Callable[[Stream, Headers], Receiver | None]
"""Says who answers a new stream; None: it has been answered already."""


class Streams:
    """`idle` is called whenever the last stream has ended."""

    def __init__(self, transport: asyncio.Transport, opened: Opened, idle: Callable[[], None]) -> None:
        self.open: dict[int, Stream] = {}
        self.last = 0
        """The newest stream of the client."""
        self.closing = False
        """No new ones: what the client opens beyond `last` it has been told to open elsewhere."""
        self.patience = Patience()
        self.outbox = Outbox(transport, self._finished, self.patience.regain)
        self._opened, self._idle = opened, idle
        self._reader = HeaderReader()
        self._left: dict[int, None] = {}
        """Streams that we ended before the client did: what it still sends there is no fault."""
        self._block: tuple[int, int, int, bytearray] | None = None
        """(stream, flags, frames, block) between HEADERS and the last CONTINUATION."""
        self.room, self.owed = limits.CONNECTION_WINDOW, 0
        """Bytes the client may still send, on all streams together; bytes that were taken and not granted again."""

    @property
    def in_headers(self) -> bool:
        """Whether a header block has begun and not ended."""
        return self._block is not None

    # windows for what arrives

    def consumed(self, nbytes: int) -> None:
        """The application took bytes: the client may send as many again, on whatever stream."""
        self.owed += nbytes
        if self.owed >= limits.CONNECTION_WINDOW // 4:
            self.room += self.owed
            self.outbox.control(frames.window_update(0, self.owed))
            self.owed = 0

    def grant(self, stream: Stream, nbytes: int) -> None:
        stream.room += nbytes
        self.outbox.control(frames.window_update(stream.number, nbytes))

    # frames

    def check_order(self, kind: int, number: int) -> None:
        """Raises ConnectionFailed for a frame in the middle of a header block."""
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ConnectionFailed(frames.PROTOCOL_ERROR, "a header block was interrupted")

    def data(self, number: int, flags: int, payload: bytes) -> None:
        nbytes = len(payload)
        self.room -= nbytes
        if self.room < 0:
            raise ConnectionFailed(frames.FLOW_CONTROL_ERROR, "more data than the window of the connection")
        stream = self.open.get(number)
        if stream is None:
            self._expect_opened(number, "data")
            self.consumed(nbytes)
            if number not in self._left and number <= self.last:
                raise StreamFailed(frames.STREAM_CLOSED, f"data on the ended stream {number}")
            if flags & frames.END_STREAM:
                self._left.pop(number, None)
            elif not nbytes:
                self.patience.spend("empty data")
            return
        stream.unread += nbytes
        if stream.ended_in:
            raise StreamFailed(frames.STREAM_CLOSED, f"data behind the end of stream {number}")
        stream.room -= nbytes
        if stream.room < 0:
            raise StreamFailed(frames.FLOW_CONTROL_ERROR, f"more data than the window of stream {number}")
        piece = frames.unpadded(payload, flags)
        if len(piece) < nbytes:
            stream.consumed(nbytes - len(piece))
        if piece:
            stream.body += len(piece)
            stream.receiver.data(piece)
        elif not flags & frames.END_STREAM:
            self.patience.spend("empty data")
        if flags & frames.END_STREAM:
            self._end_in(stream)

    def headers(self, number: int, flags: int, payload: bytes) -> None:
        payload = frames.unpadded(payload, flags)
        if flags & frames.WITH_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFailed(frames.FRAME_SIZE_ERROR, "a priority that is cut off")
            payload = payload[5:]
        if number % 2 == 0:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, f"{number} is no stream of a client")
        if flags & frames.END_HEADERS:
            self._headed(number, flags, payload)
        else:
            self._block = number, flags, 1, bytearray(payload)

    def continuation(self, number: int, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, "a continuation of nothing")
        _, first_flags, count, block = self._block
        block += payload
        if len(block) > limits.MOST_HEADER_BYTES or count > limits.MOST_CONTINUATIONS:
            text = f"headers of more than {limits.MOST_HEADER_BYTES} bytes or {limits.MOST_CONTINUATIONS} frames"
            raise ConnectionFailed(frames.ENHANCE_YOUR_CALM, text)
        self._block = number, first_flags, count + 1, block
        if flags & frames.END_HEADERS:
            self._block = None
            self._headed(number, first_flags, bytes(block))

    def rst_stream(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(frames.FRAME_SIZE_ERROR, "RST_STREAM has 4 bytes")
        self._expect_opened(number, "RST_STREAM")
        self.patience.spend("RST_STREAM")
        self._left.pop(number, None)
        if (stream := self.open.get(number)) is not None:
            self._forget(stream)

    def window_update(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFailed(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE has 4 bytes")
        self.patience.spend("WINDOW_UPDATE")
        increment = int.from_bytes(payload, "big") & 0x7FFFFFFF
        if number == 0:
            if not increment:
                raise ConnectionFailed(frames.PROTOCOL_ERROR, "a window update by nothing")
            if not self.outbox.grow(increment):
                raise ConnectionFailed(frames.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
            return
        self._expect_opened(number, "WINDOW_UPDATE")
        if not increment:
            raise StreamFailed(frames.PROTOCOL_ERROR, "a window update by nothing")
        stream = self.open.get(number)
        if stream is not None and not self.outbox.grow_stream(stream, increment):
            raise StreamFailed(frames.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")

    def priority(self, number: int, flags: int, payload: bytes) -> None:
        """It is checked; streams take turns here whatever it says (RFC 9113 has given it up)."""
        if number == 0:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != 5:
            raise StreamFailed(frames.FRAME_SIZE_ERROR, "PRIORITY has 5 bytes")
        self.patience.spend("PRIORITY")

    def _headed(self, number: int, flags: int, block: bytes) -> None:
        """The headers that open a stream, or the trailers of a request."""
        headers = self._reader.read(block)
        end = bool(flags & frames.END_STREAM)
        if number <= self.last:
            self._trailers(number, end)
            return
        if self.closing:
            return
        self.last = number
        try:
            headers.check()
            if len(self.open) >= limits.MAX_STREAMS or self.outbox.unsent > limits.MOST_UNSENT:
                raise StreamFailed(frames.REFUSED_STREAM, "too many streams")
        except StreamFailed:
            self._leave(number, end)
            raise
        stream = self.open[number] = Stream(self, number, self.outbox.first_window, headers.length)
        receiver = self._opened(stream, headers)
        if receiver is None:
            if end:
                self._left.pop(number, None)
            return
        stream.receiver = receiver
        if end:
            self._end_in(stream)

    def _trailers(self, number: int, end: bool) -> None:
        stream = self.open.get(number)
        if stream is None:
            if number not in self._left:
                raise ConnectionFailed(frames.STREAM_CLOSED, f"headers on the ended stream {number}")
            self.patience.spend("headers on a stream that was ended")
            if end:
                self._left.pop(number)
        elif stream.ended_in:
            raise StreamFailed(frames.STREAM_CLOSED, f"headers behind the end of stream {number}")
        elif not end:
            raise StreamFailed(frames.PROTOCOL_ERROR, f"trailers that do not end stream {number}")
        else:
            self._end_in(stream)

    def _end_in(self, stream: Stream) -> None:
        stream.ended_in = True
        if stream.length is not None and stream.length != stream.body:
            raise StreamFailed(frames.PROTOCOL_ERROR, f"{stream.body} bytes under a content-length of {stream.length}")
        if stream.open:
            stream.receiver.end()

    def _expect_opened(self, number: int, what: str) -> None:
        if number == 0 or (number > self.last and not self.closing):
            raise ConnectionFailed(frames.PROTOCOL_ERROR, f"{what} on the idle stream {number}")

    # ends

    def fail(self, number: int, failed: StreamFailed) -> None:
        """The peer broke a rule on a stream, which need not be open any more. Raises ConnectionFailed: too often."""
        self.patience.spend(str(failed))
        if (stream := self.open.get(number)) is not None:
            self.reset(stream, failed.code)
        else:
            self.outbox.control(frames.rst_stream(number, failed.code))

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream at once; its receiver is told."""
        self.outbox.control(frames.rst_stream(stream.number, code))
        self._leave(stream.number, stream.ended_in)
        self._forget(stream)

    def forget_all(self) -> None:
        for stream in list(self.open.values()):
            self._forget(stream)

    def cut_off_slow_readers(self) -> bool:
        """End streams whose answers were hardly read since this was asked last; true: nobody reads at all."""
        if self.outbox.stuck():
            return True
        for stream in list(self.open.values()):
            if stream.watched and stream.out and stream.tail is not None and stream.progress < limits.LEAST_BYTES:
                self.reset(stream, frames.CANCEL)
            stream.watched, stream.progress = bool(stream.out), 0
        return False

    def _finished(self, stream: Stream) -> None:
        """Our side of a stream is over; the client need not go on either."""
        if not stream.ended_in:
            self.outbox.control(frames.rst_stream(stream.number, frames.NO_ERROR))
            self._leave(stream.number, False)
        self._gone(stream)
        stream.receiver = NOBODY
        stream.flushed()

    def _forget(self, stream: Stream) -> None:
        self.outbox.forget(stream)
        self._gone(stream)
        receiver, stream.receiver = stream.receiver, NOBODY
        receiver.gone()

    def _gone(self, stream: Stream) -> None:
        """What was held of it is no longer held."""
        self.open.pop(stream.number, None)
        if stream.unread:
            self.consumed(stream.unread)
        if not self.open:
            self._idle()

    def _leave(self, number: int, ended_in: bool) -> None:
        if not ended_in:
            self._left[number] = None
            if len(self._left) > _MOST_LEFT:
                self._left.pop(next(iter(self._left)))

"""What leaves a connection, and when: as the peer's windows and the socket allow, streams in turn.

Data waits in its stream until both windows have room and the socket has taken what it got before; headers and control
frames do not wait, so they are bounded apart. Memory is bounded by that, by the peer's windows and by MOST_UNSENT.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.http2 import limits
from gateway.http2.frames import FIRST_WINDOW, MAX_FRAME, MAX_WINDOW, Block, data_head, frame
from gateway.http2.frames import HEADERS as _HEADERS
from gateway.http2.headers import no_table
from gateway.http2.stream import Stream

_MOST_FRAME = 1 << 20
"""Bytes of a frame of ours, if the peer allows them: streams that take turns should not wait longer."""

_JOIN_BELOW = 1 << 14
"""Frames below this are joined with their heads: a copy costs less than a second write."""

_NO_TABLE = no_table()


class Outbox:
    """`ended(stream)` is called when the last of a stream has left; `regain(n)` for each frame of data."""

    def __init__(
        self, transport: asyncio.Transport, ended: Callable[[Stream], None], regain: Callable[[int], None]
    ) -> None:
        transport.set_write_buffer_limits(limits.WRITE_AHEAD)
        self._transport = transport
        self._ended, self._regain = ended, regain
        self._turns: dict[int, Stream] = {}
        """Streams with something to send and a window to send it in, in the order of their turns."""
        self._before_headers = _NO_TABLE
        self.window = FIRST_WINDOW
        self.first_window = FIRST_WINDOW
        self.max_frame = MAX_FRAME
        self.paused = self._was_paused = False
        """Whether the socket takes no more; `_was_paused`: it has taken nothing since `stuck` was asked."""
        self.unsent = 0
        self.closed = False

    def end(self, data: bytes) -> None:
        """The last bytes of the connection. The peer gets to read them although it may still be sending: a socket that
        is closed with something unread throws away what the peer has not read."""
        if not (self.closed or self._transport.is_closing()):
            self._transport.write(data)
            self._transport.write_eof()
        self.closed = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = self._was_paused = False
        self.flush()

    def control(self, data: bytes) -> None:
        """Frames that do not wait. A peer that makes us write them and does not read is cut off."""
        transport = self._transport
        if self.closed or transport.is_closing():
            return
        transport.write(data)
        if self.paused and transport.get_write_buffer_size() > limits.WRITE_AHEAD + _MOST_FRAME + limits.MOST_CONTROL:
            transport.abort()

    def headers(self, stream: Stream, block: Block) -> None:
        if self._before_headers:
            self.control(frame(_HEADERS, block.start[4], stream.number, self._before_headers + block.payload))
            self._before_headers = b""
        else:
            self.control(b"".join((block.start, stream.number.to_bytes(4, "big"), block.payload)))

    def answer(self, stream: Stream, head: Block, body: tuple[bytes, ...], tail: Block) -> None:
        """An answer that is complete; in one write where it fits."""
        nbytes = sum(map(len, body))
        if (
            nbytes > MAX_FRAME
            or nbytes > self.window
            or nbytes > stream.window
            or self.paused
            or self._turns
            or self._before_headers
        ):
            self.headers(stream, head)
            self.send(stream, body)
            self.finish(stream, tail)
            return
        self.window -= nbytes
        number = stream.number.to_bytes(4, "big")
        self.control(
            b"".join(
                (head.start, number, head.payload, data_head(nbytes, stream.number), *body, tail.start, number,
                 tail.payload)
            )
        )  # fmt: skip
        self._regain(6)
        self._ended(stream)

    def send(self, stream: Stream, pieces: tuple[bytes, ...]) -> None:
        for piece in pieces:
            if piece:
                stream.out.append(memoryview(piece))
                self.unsent += len(piece)
        if stream.out and stream.window > 0:
            self._turns[stream.number] = stream
            self.flush()

    def finish(self, stream: Stream, tail: Block) -> None:
        if stream.out:
            stream.tail = tail
        else:
            self.headers(stream, tail)
            self._ended(stream)

    def forget(self, stream: Stream) -> None:
        """Nothing of what waits will be sent."""
        self._turns.pop(stream.number, None)
        self.unsent -= sum(map(len, stream.out))
        stream.out.clear()
        stream.flushed()

    def flush(self) -> None:
        """Send what may be sent, a frame of each stream in turn."""
        turns = self._turns
        while turns and self.window > 0 and not (self.paused or self.closed or self._transport.is_closing()):
            stream = turns.pop(next(iter(turns)))
            self._frame(stream)
            if stream.out:
                if stream.window > 0:
                    turns[stream.number] = stream
                continue
            if stream.tail is None:
                stream.flushed()
            else:
                self.headers(stream, stream.tail)
                self._ended(stream)

    def stuck(self) -> bool:
        """Whether the socket has taken nothing since this was asked last, and something waits."""
        stuck, self._was_paused = self._was_paused and self.paused, self.paused
        return stuck

    def grow(self, increment: int) -> bool:
        """The window of the connection; false when it is beyond what a window may be."""
        self.window += increment
        if self.window > MAX_WINDOW:
            return False
        self.flush()
        return True

    def grow_stream(self, stream: Stream, increment: int) -> bool:
        """The window of a stream, by less than nothing when settings changed."""
        stream.window += increment
        if stream.window > MAX_WINDOW:
            return False
        if stream.out and stream.window > 0:
            self._turns[stream.number] = stream
            self.flush()
        elif stream.window <= 0:
            self._turns.pop(stream.number, None)
        return True

    def _frame(self, stream: Stream) -> None:
        """One DATA frame of a stream, of as many pieces as it takes."""
        most = min(self.max_frame, _MOST_FRAME, self.window, stream.window)
        pieces: list[memoryview] = []
        nbytes = 0
        while stream.out and nbytes < most:
            piece = stream.out[0]
            if len(piece) > most - nbytes:
                stream.out[0] = piece[most - nbytes :]
                piece = piece[: most - nbytes]
            else:
                stream.out.popleft()
            pieces.append(piece)
            nbytes += len(piece)
        self.window -= nbytes
        stream.window -= nbytes
        stream.progress += nbytes
        self.unsent -= nbytes
        self._regain(4)
        head = data_head(nbytes, stream.number)
        if nbytes < _JOIN_BELOW:
            self._transport.write(b"".join((head, *pieces)))
        else:
            self._transport.writelines([head, *pieces])

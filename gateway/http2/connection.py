"""One connection: bytes to frames, and what concerns no stream (RFC 9113, sections 3, 4 and 6.5 to 6.8).

What a peer does wrong ends its stream or its connection, with the code that the RFC has for it. What it may make us
hold or do is in limits.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from gateway.http2 import frames, greeting, limits
from gateway.http2.frames import ConnectionFailed, StreamFailed
from gateway.http2.settings import apply
from gateway.http2.streams import Opened, Streams

_LINGER_S = 1.0
"""Time in which a peer that was told off may read what it was told."""

Taker = Callable[[int, int, bytes], None]


class Connection(asyncio.Protocol):
    """`connections`: the connection is among them as long as it lasts."""

    streams: Streams
    """From connection_made on."""

    def __init__(self, opened: Opened, connections: set[Connection]) -> None:
        self._opened = opened
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()
        """Done when the connection is."""
        self._transport: asyncio.Transport = None  # type: ignore[assignment] # from connection_made on
        self._rest = b""
        self._greeted = self._has_settings = False
        self._waiting_since = self._looked_at = self._loop.time()
        """When the greeting, a header block or the end began to be waited for; when slow readers were looked for."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a peer that lost power is noticed some day
        self.streams = streams = Streams(self._transport, self._opened, self._close_if_idle)
        self._control = streams.outbox.control
        self._takers: dict[int, Taker] = {
            frames.PRIORITY: streams.priority,
            frames.RST_STREAM: streams.rst_stream,
            frames.SETTINGS: self._settings,
            frames.PUSH_PROMISE: _push_promise,
            frames.PING: self._ping,
            frames.GOAWAY: self._goaway,
            frames.WINDOW_UPDATE: streams.window_update,
            frames.CONTINUATION: streams.continuation,
        }

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self.streams.forget_all()
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        self.streams.outbox.pause()

    def resume_writing(self) -> None:
        self.streams.outbox.resume()

    def data_received(self, data: bytes) -> None:
        if self.streams.outbox.closed:
            return
        if self._rest:
            data = self._rest + data
        try:
            self._rest = data[self._read(data) :]
        except ConnectionFailed as exc:
            self._fail(exc.code, str(exc))

    # the server's business

    def close_softly(self) -> None:
        """No new streams; the connection ends with the last one."""
        if not self.streams.closing:
            self.streams.closing = True
            if self._greeted:
                self._control(frames.goaway(self.streams.last, frames.NO_ERROR))
            self._close_if_idle()

    def abort(self) -> None:
        self._transport.abort()

    def second(self, now: float, limit_s: float) -> None:
        """About a second has passed: end what is slower than `limit_s` allows."""
        self.streams.patience.second()
        waited = now - self._waiting_since > limit_s
        if self._transport.is_closing() or self.streams.outbox.closed:
            if waited:
                self._transport.abort()
            return
        if not self._has_settings or self.streams.in_headers:
            if waited:
                self._fail(frames.ENHANCE_YOUR_CALM, f"what was begun did not arrive within {limit_s:g} s")
                return
        else:
            self._waiting_since = now
        for stream in list(self.streams.open.values()):
            stream.receiver.second(now, limit_s)
        if now - self._looked_at > limit_s:
            self._looked_at = now
            if self.streams.cut_off_slow_readers():
                self._transport.abort()

    # frames

    def _read(self, data: bytes) -> int:
        """Take the whole frames of `data`; where they end. Raises ConnectionFailed."""
        at, size = 0, len(data)
        if not self._greeted:
            if not self._greet(data):
                return 0
            at = len(frames.PREFACE)
        while size - at >= frames.HEAD_BYTES:
            nbytes = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if nbytes > frames.MAX_FRAME:
                raise ConnectionFailed(frames.FRAME_SIZE_ERROR, f"a frame of {nbytes} bytes; the most is 16384")
            start = at + frames.HEAD_BYTES
            end = start + nbytes
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            number = int.from_bytes(data[at + 5 : start], "big") & 0x7FFFFFFF
            self._frame(kind, flags, number, data[start:end])
            if self.streams.outbox.closed or self._transport.is_closing():
                return size
            at = end
        return at

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        streams = self.streams
        if not self._has_settings and kind != frames.SETTINGS:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, "the first frame must be one of settings")
        streams.check_order(kind, number)
        try:
            if kind == frames.DATA:
                streams.data(number, flags, payload)
            elif kind == frames.HEADERS:
                streams.headers(number, flags, payload)
            elif (taker := self._takers.get(kind)) is not None:
                taker(number, flags, payload)
            else:
                streams.patience.spend(f"of the unknown type {kind}")
        except StreamFailed as exc:
            streams.fail(number, exc)

    def _greet(self, data: bytes) -> bool:
        """Whether the greeting is complete. Raises ConnectionFailed when it is another one."""
        if not greeting.complete(data):
            return False
        self._greeted = True
        ours = {
            frames.MAX_STREAMS: limits.MAX_STREAMS,
            frames.INITIAL_WINDOW: limits.STREAM_WINDOW,
            frames.MAX_HEADER_LIST: limits.HEADER_BYTES,
        }
        more = limits.CONNECTION_WINDOW - frames.FIRST_WINDOW
        self._control(frames.settings(ours) + frames.window_update(0, more))
        return True

    def _settings(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, "settings of a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFailed(frames.FRAME_SIZE_ERROR, "an acknowledgement of settings has no bytes")
            return
        self.streams.patience.spend("SETTINGS")
        self._has_settings = True
        apply(payload, self.streams.outbox, self.streams.open.values())
        self._control(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _ping(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ConnectionFailed(frames.FRAME_SIZE_ERROR, "PING has 8 bytes")
        if number:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, "a ping of a stream")
        if not flags & frames.ACK:
            self.streams.patience.spend("PING")
            self._control(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _goaway(self, number: int, flags: int, payload: bytes) -> None:
        """The client opens no more streams: as if we were closing."""
        if number:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise ConnectionFailed(frames.FRAME_SIZE_ERROR, "GOAWAY has 8 bytes or more")
        self.streams.closing = True
        self._close_if_idle()

    # the end

    def _close_if_idle(self) -> None:
        if self.streams.closing and not self.streams.open:
            self._close()

    def _close(self) -> None:
        if not self._transport.is_closing():
            self._waiting_since = self._loop.time()
            self._transport.close()

    def _fail(self, code: int, text: str) -> None:
        """End the connection, with words where the peer understands them."""
        self._rest = b""
        words = frames.goaway(self.streams.last, code, text) if self._greeted else greeting.refusal(code, text)
        self.streams.outbox.end(words)
        self.streams.forget_all()
        self._loop.call_later(_LINGER_S, self._transport.abort)


def _push_promise(number: int, flags: int, payload: bytes) -> None:
    raise ConnectionFailed(frames.PROTOCOL_ERROR, "clients push nothing")

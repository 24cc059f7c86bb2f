"""One HTTP request and its answer, as ASGI sees them: what uvicorn's own class does, cheaper where it is worth it.

One write per answer: uvicorn writes the head as soon as it has it and the body after that. Each write wakes the client
(and often runs it at once, on this very core), the first time for nothing. Here the head of an answer of known length
waits for its body, and leaves together with it. Streams go out as ever.

One read per request: a body that has arrived whole is given whole, and an event is made only when somebody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from gateway.httpd.heads import Head
from gateway.httpd.lines import Header, Lines, rendered

_JOIN_BELOW = 1 << 16
"""A body that is larger is not worth a copy to save a write."""

_HIGH_WATER = 1 << 20
"""Bytes of a body that may wait for the application; to stop and go on reading at every 64 KiB costs more."""

_DISCONNECT = {"type": "http.disconnect"}


class _Done:
    """What `await` has nothing to wait for."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]


DONE = _Done()


class _NobodyWaits:
    """In place of an event that nobody waits for."""

    def set(self) -> None: ...


class Exchange(RequestResponseCycle):
    """uvicorn's cycle. What most requests never change are attributes of the class."""

    message_event: Any = _NobodyWaits()
    waiting_for_100_continue = False
    disconnected = False
    more_body = False
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    access_log = False
    held: Any = None
    trial: Head | None = None
    """One that is welcome if this request is."""
    _given = False
    _waiting = 0
    """Bytes in `pieces`."""

    def __init__(
        self,
        scope: dict[str, Any],
        transport: asyncio.Transport,
        flow: FlowControl,
        logger: Any,
        default_headers: list[Header],
        keep_alive: bool,
        on_response: Callable[[], None],
        body: list[bytes],
    ) -> None:
        self.scope = scope  # type: ignore[assignment]
        self.transport = transport
        self.flow = flow
        self.logger = logger
        self.default_headers = default_headers
        self.keep_alive = keep_alive
        self.on_response = on_response
        self.pieces = body
        """Of the body, not given yet; nothing is copied to keep them."""

    async def receive(self) -> Any:
        """ASGI's `receive`."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        while not (self.disconnected or self.response_complete):
            if self.pieces or not (self.more_body or self._given):
                self._given = not self.more_body
                pieces, self.pieces, self._waiting = self.pieces, [], 0
                body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            self.flow.resume_reading()
            self.message_event = asyncio.Event()
            await self.message_event.wait()
        return _DISCONNECT

    def arrived(self, body: bytes) -> None:
        """More of the body."""
        self.pieces.append(body)
        self._waiting += len(body)
        if self._waiting > _HIGH_WATER:
            self.flow.pause_reading()
        self.message_event.set()

    def send(self, message: Any) -> Awaitable[None]:  # type: ignore[override]
        """ASGI's `send`."""
        start = self.held
        if start is None:
            if self.trial is not None and message["type"] == "http.response.start":
                self.trial.welcome = message["status"] == 200
            if message["type"] == "http.response.start" and not self.response_started and self._can_wait(message):
                self.held = message
                self.response_started = True
                return DONE
            return super().send(message)
        self.held = None
        body = message.get("body", b"")
        if (
            message["type"] != "http.response.body"
            or message.get("more_body", False)
            or len(body) > _JOIN_BELOW
            or not self.keep_alive  # a shutdown began since
            or self.disconnected
            or self.scope["method"] == "HEAD"
        ):
            return self._send_apart(start, message)
        self.waiting_for_100_continue = False
        self.transport.write(_whole(start["status"], self.default_headers, start["headers"], body))
        self.response_complete = True
        self.message_event.set()
        self.on_response()
        return DONE

    async def _send_apart(self, start: Any, message: Any) -> None:
        self.response_started = False
        await super().send(start)
        await super().send(message)

    def _can_wait(self, message: Any) -> bool:
        """Whether the body follows at once and nothing about the connection is special."""
        if not self.keep_alive or self.disconnected or self.flow.write_paused:
            return False
        if type(message["headers"]) is Lines:
            return True
        sized = False
        for name, _ in message["headers"]:
            if name == b"content-length":
                sized = True
            elif name in (b"connection", b"transfer-encoding"):
                return False
        return sized


class _Defaults:
    """The lines of uvicorn's default headers, which it replaces once a second."""

    headers: list[Header] | None = None
    wire = b""


def _whole(status: int, defaults: list[Header], headers: list[Header], body: bytes | memoryview) -> bytes:
    if defaults is not _Defaults.headers:
        _Defaults.headers, _Defaults.wire = defaults, rendered(defaults)
    if type(headers) is Lines:
        return b"".join((STATUS_LINE[status], _Defaults.wire, headers.wire, b"\r\n", body))
    for name, value in headers:
        if name == b"content-length" and int(value) != len(body):
            raise RuntimeError(f"an answer of {len(body)} bytes has the content-length {int(value)}")
    return b"".join((STATUS_LINE[status], _Defaults.wire, rendered(headers), b"\r\n", body))

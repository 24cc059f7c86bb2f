"""One write per answer: the head of an HTTP answer leaves together with its body.

uvicorn writes the head as soon as it has it and the body after that. Each write wakes the client (and often runs it at
once, on this very core), the first time for nothing: at one small request at a time that is a fifth of its time.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

Header = tuple[bytes, bytes]
_JOIN_BELOW = 1 << 16
"""A body that is larger is not worth a copy to save a write."""


class WholeAnswers(RequestResponseCycle):
    """A cycle that keeps the head of an answer of known length until the body is there. Streams go out as ever."""

    held: Any = None

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        if self.held is not None:
            await self._send_body(message)
        elif message["type"] == "http.response.start" and not self.response_started and self._can_wait(message):
            self.held = message
            self.response_started = True
        else:
            await super().send(message)

    def _can_wait(self, message: Any) -> bool:
        """Whether the body follows at once and nothing about the connection is special."""
        sized = False
        for name, _ in message["headers"]:
            if name == b"content-length":
                sized = True
            elif name in (b"connection", b"transfer-encoding"):
                return False
        return sized and self.keep_alive and not self.disconnected and not self.flow.write_paused

    async def _send_body(self, message: Any) -> None:
        start, self.held = self.held, None
        body = message.get("body", b"")
        if (
            message["type"] != "http.response.body"
            or message.get("more_body", False)
            or len(body) > _JOIN_BELOW
            or not self.keep_alive  # a shutdown began since
            or self.disconnected
            or self.scope["method"] == "HEAD"
        ):
            self.response_started = False
            await super().send(start)
            await super().send(message)
            return
        self.waiting_for_100_continue = False
        self.transport.write(_whole(start["status"], [*self.default_headers, *start["headers"]], body))
        self.response_complete = True
        self.message_event.set()
        self.on_response()


def _whole(status: int, headers: list[Header], body: bytes | memoryview) -> bytes:
    parts: list[bytes | memoryview] = [STATUS_LINE[status]]
    if HEADER_RE.search(b"".join([name for name, _ in headers])) or HEADER_VALUE_RE.search(
        b"".join([value for _, value in headers])
    ):
        raise RuntimeError("invalid HTTP header")
    for name, value in headers:
        if name == b"content-length" and int(value) != len(body):
            raise RuntimeError(f"an answer of {len(body)} bytes has the content-length {int(value)}")
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n", body)
    return b"".join(parts)

"""One HTTP/1.1 connection: uvicorn's, with limits, with a memory for heads, and with requests of our own kind.

Limits: uvicorn waits for ever for a request to arrive. Here a request that brings fewer than `_LEAST_BYTES` in
`receive_timeout_s` is answered with 408 and cut off; time in which *we* did not read does not count against it. A
connection without requests is closed after the keep-alive time; one sweep for all connections looks after both, since a
timer for each request costs more than a small request may.

Words: what the protocol layer refuses is answered as `{"error": ...}` like everything else.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import error_body
from gateway.httpd.arriving import Arriving
from gateway.httpd.exchange import Exchange
from gateway.httpd.heads import END, LONG_BYTES, MOST_BYTES, Head, Heads

_HEADER_BYTES = 64 * 1024
_LEAST_BYTES = 16 * 1024
_heads = Heads()


class Connection(HttpToolsProtocol):
    """HTTP/1.1 with a limit on header bytes and on the time a request may take to arrive."""

    receiving_since: float | None = None
    received = 0
    header_bytes = 0
    in_headers = True
    cycle: Exchange
    between = True
    """Whether the next byte begins a request: the parser holds nothing of one."""
    idle_since: float | None = None
    head = b""
    """The whole head that the current read began with; empty when it did not."""
    awaited: Head | None = None
    """Whose long body is being read (arriving.py)."""
    leaving = False
    """A shutdown began while a body was being read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.receiving_since = self.loop.time()
        self.of_connection = {"server": self.server, "client": self.client, "state": self.app_state}

    def data_received(self, data: bytes) -> None:
        self.idle_since = None
        if self.between:
            end = data.find(END, 0, MOST_BYTES) + len(END)
            self.head = data[:end] if end >= len(END) else b""
            known = _heads.get(self.head)
            if known is not None and len(data) == end + known.length and self._free():
                self.in_headers, self.receiving_since = False, None
                self._begin({**known.scope, **self.of_connection}, known.keep_alive, [data[end:]])
                return
            if known is not None and known.welcome and len(data) < end + known.length and self._free():
                self._await_body(known, data, end)
                return
            self.between = False
        self.received += len(data)
        super().data_received(data)
        self.head = b""
        if self.in_headers:  # the parser keeps an unfinished header to itself, however long it grows
            self.header_bytes += len(data)
            if self.header_bytes > _HEADER_BYTES and not self.transport.is_closing():
                self.refuse(b"431 Request Header Fields Too Large", f"the headers exceed {_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.receiving_since, self.received, self.header_bytes = self.loop.time(), 0, 0
        self.in_headers, self.between = True, False

    def on_headers_complete(self) -> None:
        self.in_headers = False
        parser, scope = self.parser, self.scope
        version, upgrade = parser.get_http_version(), parser.should_upgrade()
        url = httptools.parse_url(self.url)
        raw_path = url.path
        path = raw_path.decode("ascii")
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""
        keep_alive = version != "1.0" and parser.should_keep_alive()
        learnt = None
        if self.head and not upgrade:
            learnt = _heads.learn(self.head, scope, keep_alive)  # type: ignore[arg-type]
        self.head = b""
        free = self._free()
        cycle = self._begin(scope, keep_alive, [], start=free)
        cycle.more_body, cycle.waiting_for_100_continue = True, self.expect_100_continue
        if learnt is not None and learnt.length >= LONG_BYTES:
            cycle.trial = learnt
        if not free:  # it came before the answer to the one before
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        if not self.cycle.response_complete:
            self.cycle.arrived(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.receiving_since = None
        self.between = not self.parser.should_upgrade()

    def on_response_complete(self) -> None:
        """The answer is out: take up the request that waits, if any."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.idle_since = self.loop.time()

    def body_arrived(self, body: bytes) -> None:
        """The long body that was waited for is there whole."""
        assert self.awaited is not None
        known, self.awaited, self.receiving_since = self.awaited, None, None
        self.transport.set_protocol(self)
        self._begin({**known.scope, **self.of_connection}, known.keep_alive and not self.leaving, [body])

    def shutdown(self) -> None:
        """Close when nothing is under way, else with the next answer."""
        if self.awaited is None:
            super().shutdown()
        else:
            self.leaving = True

    def sweep(self, now: float, limit_s: float) -> None:
        """Cut the connection off when its request arrives too slowly, close it when none comes."""
        if self.idle_since is not None and now - self.idle_since > self.timeout_keep_alive:
            self.transport.close()
        if self.receiving_since is None or now - self.receiving_since < limit_s:
            return
        if (self.flow is not None and self.flow.read_paused) or self.received >= _LEAST_BYTES:
            self.receiving_since, self.received = now, 0
            return
        self.refuse(b"408 Request Timeout", f"the request did not arrive within {limit_s:g} s")

    def refuse(self, status: bytes, text: str) -> None:
        """Answer below ASGI, unless an answer has begun, and close."""
        if self.in_headers or self.awaited is not None or not self.cycle.response_started:
            body = error_body(text)
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self.refuse(b"400 Bad Request", msg)

    def _free(self) -> bool:
        """Whether no request of this connection is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _await_body(self, known: Head, data: bytes, end: int) -> None:
        """Have the rest of a long body read where it stays. Its request begins when it is there."""
        self.awaited, self.in_headers = known, False
        self.receiving_since, self.received = self.loop.time(), len(data) - end
        self.transport.set_protocol(Arriving(self, known.length, memoryview(data)[end:]))

    def _begin(self, scope: Any, keep_alive: bool, body: list[bytes], start: bool = True) -> Exchange:
        cycle = self.cycle = Exchange(
            scope, self.transport, self.flow, self.logger, self.server_state.default_headers, keep_alive,
            self.on_response_complete, body,
        )  # fmt: skip
        if start:
            self._start_asgi_task(cycle, self.app)
        return cycle

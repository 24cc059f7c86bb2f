"""The HTTP server: uvicorn driven from here, because three things of it must be otherwise.

Signals: uvicorn closes its socket the moment SIGTERM comes. Here readiness falls at once while requests are still
accepted for `drain_delay_s` (so that balancers can notice), then requests in flight get `drain_timeout_s`, and the
process exits 0. A second signal skips the delay, a third one the wait.

Slow clients: uvicorn waits for ever for a request to arrive. Here a request that brings fewer than `_LEAST_BYTES` in
`receive_timeout_s` is answered with 408 and cut off; time in which *we* did not read does not count against it.

Words: what the protocol layer refuses is answered as `{"error": ...}` like everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.answering import WholeAnswers
from gateway.errors import error_body
from gateway.settings import Settings

_HEADER_BYTES = 64 * 1024
_LEAST_BYTES = 16 * 1024
_SWEEP_TICKS = 10  # of uvicorn's 0.1 s


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with a limit on header bytes and on the time a request may take to arrive."""

    receiving_since: float | None = None
    received = 0
    header_bytes = 0
    in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.receiving_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        super().data_received(data)
        if self.in_headers:  # the parser keeps an unfinished header to itself, however long it grows
            self.header_bytes += len(data)
            if self.header_bytes > _HEADER_BYTES and not self.transport.is_closing():
                self.refuse(b"431 Request Header Fields Too Large", f"the headers exceed {_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.receiving_since, self.received, self.header_bytes = self.loop.time(), 0, 0
        self.in_headers = True

    def on_headers_complete(self) -> None:
        self.in_headers = False
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.__class__ = WholeAnswers  # uvicorn lets nobody choose the class; its task has not run yet

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.receiving_since = None

    def sweep(self, now: float, limit_s: float) -> None:
        """Cut the connection off when its request arrives too slowly."""
        if self.receiving_since is None or now - self.receiving_since < limit_s:
            return
        if (self.flow is not None and self.flow.read_paused) or self.received >= _LEAST_BYTES:
            self.receiving_since, self.received = now, 0
            return
        self.refuse(b"408 Request Timeout", f"the request did not arrive within {limit_s:g} s")

    def refuse(self, status: bytes, text: str) -> None:
        """Answer below ASGI, unless an answer has begun, and close."""
        if self.in_headers or not self.cycle.response_started:
            body = error_body(text)
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self.refuse(b"400 Bad Request", msg)


class Server(uvicorn.Server):
    """`on_drain` is called once, when the first signal comes; `on_close` once, when no more requests are accepted."""

    def __init__(
        self,
        app: Callable[..., object],
        settings: Settings,
        on_drain: Callable[[], None],
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=True,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=settings.drain_timeout_s,  # type: ignore[arg-type] # any seconds will do
            )
        )
        self._settings = settings
        self._on_drain = on_drain
        self._on_close = on_close
        self._signals = 0
        self._ticks = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In place of uvicorn's, which dies of the signal it caught: here the exit status is 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.drain)
        yield

    def drain(self) -> None:
        """What a signal does: each further one makes it faster."""
        self._signals += 1
        if self._signals == 1:
            self._on_drain()
            asyncio.get_running_loop().call_later(self._settings.drain_delay_s, self._close)
        elif self._signals == 2:
            self._close()
        else:
            self.force_exit = True

    def _close(self) -> None:
        if not self.should_exit:
            self.should_exit = True
            self._on_close()

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.sweep(now, self._settings.receive_timeout_s)
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """Take the port; connections are accepted once the server runs. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of a listening socket, with the port it really got."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

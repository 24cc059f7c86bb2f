"""The HTTP server: uvicorn driven from here, because two things of it must be otherwise.

Signals: uvicorn closes its socket the moment SIGTERM comes. Here readiness falls at once while requests are still
accepted for `drain_delay_s` (so that balancers can notice), then requests in flight get `drain_timeout_s`, and the
process exits 0. A second signal skips the delay, a third one the wait.

Connections are our own (connection.py); one sweep looks after all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from gateway.httpd.connection import Connection
from gateway.settings import Settings

_SWEEP_TICKS = 10  # of uvicorn's 0.1 s


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
                http=Connection,
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
                if isinstance(connection, Connection):
                    connection.sweep(now, self._settings.receive_timeout_s)
        return await super().on_tick(counter)


def listen(host: str, port: int, shared: bool = False) -> socket.socket:
    """Take the port; connections are accepted once the server runs. Raises OSError.

    `shared`: with other sockets that share it, too (gateway/fronts/ports.py).
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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

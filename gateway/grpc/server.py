"""The gRPC server: calls on the connections of gateway/http2, on the event loop and the engine of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway.grpc import status
from gateway.grpc.call import Arriving, Call
from gateway.grpc.errors import Refused
from gateway.grpc.head import Head, NotGrpc, Rpc, head_of
from gateway.grpc.health import Health
from gateway.grpc.infer import Inference
from gateway.grpc.methods import rpcs_of
from gateway.grpc.stream import Streams
from gateway.http2.connection import Connection
from gateway.http2.headers import Headers
from gateway.http2.stream import Stream
from gateway.httpd.server import listen
from gateway.state import Gateway

_BACKLOG = 2048
_SWEEP_S = 1.0


class GrpcServer:
    """Has its port once built, answers once started. `shared`: with other processes that say so, too."""

    def __init__(self, host: str, port: int, shared: bool = False) -> None:
        """Raises OSError when the port cannot be taken. One that is taken must be an error unless it is shared."""
        name = f"[{host}]" if ":" in host else host
        try:
            self._listener = listen(host, port, shared)
        except OSError as exc:
            raise OSError(f"{name}:{port} cannot be listened on: {exc.strerror}") from exc
        self.port: int = self._listener.getsockname()[1]
        self.address = f"{name}:{self.port}"
        self._streams: Streams | None = None
        self._health: Health | None = None
        self._rpcs: Mapping[bytes, Rpc] = {}
        self._limit_s, self._most_unpacked = 0.0, 0
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self, gateway: Gateway) -> None:
        """Answer, from now on."""
        inference = Inference(gateway)
        self._streams, self._health = Streams(inference), Health(gateway)
        self._rpcs = rpcs_of(gateway, inference, self._streams, self._health)
        self._limit_s = gateway.settings.receive_timeout_s
        self._most_unpacked = gateway.settings.slot_bytes
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, sock=self._listener, backlog=_BACKLOG)
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep)

    async def close(self, patience_s: float) -> None:
        """Refuse new calls at once; those under way get `patience_s` seconds."""
        if self._server is not None:
            self._server.close()
        self._listener.close()
        if self._streams is not None and self._health is not None:
            self._streams.close()
            self._health.close()
        for connection in tuple(self._connections):
            connection.close_softly()
        if ends := [connection.ended for connection in self._connections]:
            await asyncio.wait(ends, timeout=patience_s)
        for connection in tuple(self._connections):
            connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _connection(self) -> Connection:
        arriving = Arriving()

        def opened(stream: Stream, headers: Headers) -> Call | None:
            head = headers.meaning
            if head is None:
                head = self._read(stream, headers)
            return None if head is None else Call(stream, head, self._most_unpacked, arriving)

        return Connection(opened, self._connections)

    def _read(self, stream: Stream, headers: Headers) -> Head | None:
        """What the headers say; None when they were answered here and now."""
        try:
            head = headers.meaning = head_of(headers, self._rpcs)
        except Refused as refused:
            stream.finish(status.ended(refused.code, refused.text, alone=True))
        except NotGrpc as exc:
            stream.finish(status.no_grpc(exc.status))
        else:
            return head
        return None

    def _sweep(self) -> None:
        """Once a second: what takes too long ends. One timer for all calls costs less than one for each."""
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(_SWEEP_S, self._sweep)
        now = loop.time()
        for connection in tuple(self._connections):
            connection.second(now, self._limit_s)

"""Load from a process of its own: one request, sent over and over on kept-alive connections by a raw-socket client.

`python -m benchmarks.load PORT CONNECTIONS SECONDS REQUEST.bin` prints one JSON object. Written here so that nothing
needs installing and so that the client costs little: per answer it looks for the end of the head and a length.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.figures import Figures

WARM_UP_S = 0.4


class Connection(asyncio.Protocol):
    """Sends `request`, waits for the whole answer, notes the seconds, sends again until told to stop."""

    def __init__(self, request: bytes, seconds: list[float]) -> None:
        self.request, self.seconds = request, seconds
        self.variants: dict[str, int] = {}
        self.errors = 0
        self.stopping = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer, self._wanted = bytearray(), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class, the same methods
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._wanted = end + 4 + self._read_head(bytes(self._buffer[:end]))
        if len(self._buffer) < self._wanted:
            return
        self.seconds.append(time.perf_counter() - self._sent)
        self._buffer, self._wanted = bytearray(), 0
        if self.stopping:
            self._transport.close()
        else:
            self._send()

    def _read_head(self, head: bytes) -> int:
        """Length of the body; a status other than 200 counts as an error."""
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.errors += status.split()[1] != "200"
        variant = headers.get("forgeway-variant", "-")
        self.variants[variant] = self.variants.get(variant, 0) + 1
        return int(headers["content-length"])

    def connection_lost(self, exc: Exception | None) -> None:
        self.errors += not self.stopping
        if not self.closed.done():
            self.closed.set_result(None)


async def run(port: int, connections: int, seconds: float, request: bytes) -> Figures:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    made = [
        (await loop.create_connection(lambda: Connection(request, times), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(WARM_UP_S)
    times.clear()
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    measured, took = list(times), time.perf_counter() - started
    for connection in made:
        connection.stopping = True
    await asyncio.wait_for(asyncio.gather(*(connection.closed for connection in made)), 60)
    variants: dict[str, int] = {}
    for connection in made:
        for name, count in connection.variants.items():
            variants[name] = variants.get(name, 0) + count
    return Figures.of(measured, took, errors=sum(c.errors for c in made), variants=variants)


def main() -> None:
    port, connections, seconds, request = sys.argv[1:]
    figures = uvloop.run(run(int(port), int(connections), float(seconds), Path(request).read_bytes()))
    print(json.dumps(figures.as_dict()))


if __name__ == "__main__":
    main()

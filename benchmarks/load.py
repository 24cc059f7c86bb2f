"""Load from a process of its own: one request, sent over and over on kept-alive connections by a raw-socket client.

`python -m benchmarks.load PORT CONNECTIONS SECONDS REQUEST.bin` prints one JSON object. Written here so that nothing
needs installing and so that the client costs little: per answer it looks for the end of the head and a length.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.figures import Figures

WARM_UP_S = 0.4
LEAST_ROUNDS = 4
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """When it was complete (perf_counter) and how long it took, in seconds."""

    at: float
    seconds: float


class Connection(asyncio.Protocol):
    """Sends `request`, waits for the whole answer, notes the seconds, sends again until told to stop."""

    def __init__(self, request: bytes, answers: list[Answer]) -> None:
        self.request, self.answers = request, answers
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
        now = time.perf_counter()
        self.answers.append(Answer(now, now - self._sent))
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
    """Measure for `seconds`, longer for slow models: until every connection had `LEAST_ROUNDS` answers."""
    loop = asyncio.get_running_loop()
    answers: list[Answer] = []
    made = [
        (await loop.create_connection(lambda: Connection(request, answers), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await until(answers, connections, WARM_UP_S)
    answers.clear()
    await until(answers, LEAST_ROUNDS * connections + 1, seconds)
    measured = list(answers)
    for connection in made:
        connection.stopping = True
    await asyncio.wait_for(asyncio.gather(*(connection.closed for connection in made)), 60)
    variants: dict[str, int] = {}
    for connection in made:
        for name, count in connection.variants.items():
            variants[name] = variants.get(name, 0) + count
    return Figures.of(
        [answer.seconds for answer in measured],
        rate([answer.at for answer in measured], connections),
        errors=sum(connection.errors for connection in made),
        variants=variants,
    )


def rate(moments: Sequence[float], connections: int) -> float:
    """Answers a second. Batched answers come in waves, so a whole number of answers a connection is counted."""
    counted = (len(moments) - 1) // connections * connections
    return counted / (moments[counted] - moments[0])


async def until(answers: list[Answer], count: int, seconds: float) -> None:
    """Wait for `seconds`, and on until there are `count` answers. Raises TimeoutError."""
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    while len(answers) < count:
        if time.perf_counter() - started > PATIENCE_S:
            raise TimeoutError(f"only {len(answers)} of {count} answers in {PATIENCE_S:g} s")
        await asyncio.sleep(0.02)


def main() -> None:
    port, connections, seconds, request = sys.argv[1:]
    figures = uvloop.run(run(int(port), int(connections), float(seconds), Path(request).read_bytes()))
    print(json.dumps(figures.as_dict()))


if __name__ == "__main__":
    main()

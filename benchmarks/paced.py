"""Load at a given rate from a process of its own, every answer checked: `python -m benchmarks.paced SPEC.json`.

Open loop: requests leave at planned moments whether or not earlier ones were answered. A time counts from the planned
moment, of which only the timer's own grain (`GRAIN_S`) is forgiven: a client or a server that stalls does not hide it.
Without a rate the loop is closed, each connection asks again at once: that is how capacity is measured, with the same
client. One JSON object is printed for each window of time and model, and one at the end for each model (window -1).
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvloop

from gateway.client.tensors import LENGTH_HEADER, decode

GRAIN_S = 0.002
LEAST_COSINE = 0.95
_LENGTH, _HEAD = b"content-length:", LENGTH_HEADER.encode() + b":"
_MOST_KNOWN = 256


@dataclass
class Question:
    """A whole HTTP request and what its outputs must be like. Answers once found right are known by their bytes."""

    model: str
    request: bytes
    expected: Mapping[str, np.ndarray]
    known: set[bytes] = field(default_factory=set)

    def fault(self, head: bytes, body: bytes) -> str | None:
        """What is wrong with an answer, or None. Another row's answer points elsewhere and is found out."""
        if not head.startswith(b"HTTP/1.1 200"):
            return head.split(b"\r\n", 1)[0].decode("latin-1")
        length = _number(head, _HEAD)
        tensors = body if length is None else body[length:]
        if tensors in self.known:
            return None
        outputs = decode(body, None if length is None else str(length))[1]
        for name, value in self.expected.items():
            got = outputs.get(name)
            if got is None or got.shape != value.shape:
                return f"output {name!r} is {None if got is None else got.shape}, not {value.shape}"
            a, b = got.astype(np.float64).ravel(), value.astype(np.float64).ravel()
            cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-30))
            if not cosine >= LEAST_COSINE:
                return f"output {name!r} has cosine {cosine:.3f} with the reference's"
        if len(self.known) < _MOST_KNOWN:
            self.known.add(bytes(tensors))
        return None


class Account:
    """Times of right answers in seconds by model, of this window and of all; what went wrong, in words."""

    def __init__(self) -> None:
        self.window: dict[str, array[float]] = {}
        self.whole: dict[str, array[float]] = {}
        self.faults: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def answered(self, model: str, seconds: float) -> None:
        self.window.setdefault(model, array("f")).append(seconds)

    def wrong(self, model: str, fault: str) -> None:
        self.failed[model] = self.failed.get(model, 0) + 1
        if len(self.faults) < 100 or fault in self.faults:
            self.faults[fault] = self.faults.get(fault, 0) + 1

    def close_window(self, number: int, seconds: float) -> Iterator[dict[str, Any]]:
        for model, times in self.window.items():
            yield self.line(number, model, times, seconds)
            self.whole.setdefault(model, array("f")).extend(times)
        self.window = {}

    def line(self, number: int, model: str, times: Sequence[float], seconds: float) -> dict[str, Any]:
        p50, p90, p99 = np.percentile(np.asarray(times), (50, 90, 99)).tolist()
        return {
            "window": number, "model": model, "count": len(times), "rate": len(times) / seconds, "p50_s": p50,
            "p90_s": p90, "p99_s": p99, "max_s": max(times), "failed": self.failed.get(model, 0), "faults": self.faults,
        }  # fmt: skip


class Connection(asyncio.Protocol):
    """One request at a time; `free` is told when it may be given the next."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._question: Question | None = None
        self._buffer, self._wanted, self._head = bytearray(), 0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, question: Question, since: float) -> None:
        self._question, self._since = question, since
        self.transport.write(question.request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._buffer[:end])
            self._wanted = end + 4 + (_number(self._head, _LENGTH) or 0)
        if len(self._buffer) < self._wanted or self._question is None:
            return
        seconds = time.perf_counter() - self._since
        body = bytes(self._buffer[len(self._head) + 4 : self._wanted])
        question, self._question = self._question, None
        self._buffer, self._wanted = bytearray(), 0
        self.load.answered(self, question, seconds, self._head, body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._question is not None:
            self.load.account.wrong(self._question.model, f"the connection was lost: {exc}")
        if not self.closed.done():
            self.closed.set_result(None)


class Load:
    def __init__(self, questions: Sequence[Question], seed: int = 0) -> None:
        self.account = Account()
        self.free: deque[Connection] = deque()
        self.waiting: deque[tuple[Question, float]] = deque()
        self.asking_again = False
        self._questions, self._random = questions, random.Random(seed)

    def question(self) -> Question:
        return self._random.choice(self._questions)

    def answered(self, connection: Connection, question: Question, seconds: float, head: bytes, body: bytes) -> None:
        fault = question.fault(head, body)
        if fault is None:
            self.account.answered(question.model, seconds)
        else:
            self.account.wrong(question.model, fault)
        if self.waiting:
            connection.ask(*self.waiting.popleft())
        elif self.asking_again:
            connection.ask(self.question(), time.perf_counter())
        else:
            self.free.append(connection)

    def plan(self, planned: float) -> None:
        """Ask now what was planned for then, or as soon as a connection is free."""
        since = max(planned, time.perf_counter() - GRAIN_S)
        if self.free:
            self.free.popleft().ask(self.question(), since)
        else:
            self.waiting.append((self.question(), since))

    async def run(
        self, port: int, connections: int, rate: float | None, seconds: float, window_s: float, poisson: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        made = [
            (await loop.create_connection(lambda: Connection(self), "127.0.0.1", port))[1] for _ in range(connections)
        ]
        self.free.extend(made)
        begun = time.perf_counter()
        planned, window, windows = begun, begun, 0
        if rate is None:
            self.asking_again = True
            while self.free:
                self.free.popleft().ask(self.question(), time.perf_counter())
        while (now := time.perf_counter()) < begun + seconds:
            while rate is not None and planned <= now:
                self.plan(planned)
                planned += self._random.expovariate(rate) if poisson else 1 / rate
            if now - window >= window_s:
                self.tell(windows, now - window)
                window, windows = now, windows + 1
            await asyncio.sleep(0.02 if rate is None else max(0.0, planned - time.perf_counter()))
        self.asking_again = False
        ended = time.perf_counter()
        while len(self.free) < len(made) and time.perf_counter() < ended + 30:  # noqa: ASYNC110 - at the end, nothing is measured
            await asyncio.sleep(0.01)
        if len(self.free) < len(made):
            self.account.wrong("-", f"{len(made) - len(self.free)} requests were not answered within 30 s")
        self.tell(windows, ended - window)
        for model, times in self.account.whole.items():
            print(json.dumps(self.account.line(-1, model, times, ended - begun)), flush=True)
        for connection in made:
            connection.transport.close()

    def tell(self, number: int, seconds: float) -> None:
        for line in self.account.close_window(number, seconds):
            print(json.dumps(line), flush=True)


def _number(head: bytes, name: bytes) -> int | None:
    """Value of a header, whatever the case of its name."""
    lower = head.lower()
    start = lower.find(b"\r\n" + name)
    return None if start < 0 else int(lower[start + 2 + len(name) :].split(b"\r\n", 1)[0])


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    questions = []
    for each in spec["questions"]:
        with np.load(each["expected"]) as expected:
            questions.append(Question(each["model"], Path(each["request"]).read_bytes(), dict(expected)))
    gc.freeze()
    gc.disable()  # its pauses would be told as the server's
    load = Load(questions)
    uvloop.run(
        load.run(spec["port"], spec["connections"], spec["rate"], spec["seconds"], spec["window_s"], spec["poisson"])
    )


if __name__ == "__main__":
    main()

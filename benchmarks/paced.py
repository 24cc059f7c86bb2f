"""Load at a given rate from a process of its own, every answer checked: `python -m benchmarks.paced SPEC.json`.

Open loop: requests leave at planned moments whether or not earlier ones were answered, those of one tick (`TICK_S`)
together. A time counts from the planned moment, and nothing is forgiven: a client or a server that stalls does not hide
it. Without a rate the loop is closed, each connection asks again at once: that is how capacity is measured, with the
same client. One JSON object is printed for each window of time and model, and one at the end for each model (window
-1).

It shares the machine with what it measures, so it costs little: an answer in one piece is recognised by its bytes.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvloop

from benchmarks.ticks import Ticks
from gateway.client.tensors import LENGTH_HEADER, decode

TICK_S = 0.001
WARM_UP_S = 1.0
"""What is planned before that is sent and checked, not timed: here every answer is new, and so is the load there."""

LEAST_COSINE = 0.95
_LENGTH, _HEAD = b"\r\ncontent-length: ", b"\r\n" + LENGTH_HEADER.encode() + b": "
_MOST_KNOWN = 256
_DRAWN = 10_000


@dataclass
class Question:
    """A whole HTTP request and what its outputs must be like. Answers once found right are known by their bytes."""

    model: str
    request: bytes
    expected: Mapping[str, np.ndarray]
    known: set[bytes] = field(default_factory=set)

    def fault(self, answer: bytes, end: int) -> str | None:
        """What is wrong with an answer whose head ends at `end`, or None. Another row's answer points elsewhere and is
        found out."""
        if not answer.startswith(b"HTTP/1.1 200"):
            return answer.split(b"\r\n", 1)[0].decode("latin-1")
        length = _number(answer, _HEAD, end)
        tensors = answer[end + (length or 0) :]
        if tensors in self.known:
            return None
        outputs = decode(answer[end:], None if length is None else str(length))[1]
        for name, value in self.expected.items():
            got = outputs.get(name)
            if got is None or got.shape != value.shape:
                return f"output {name!r} is {None if got is None else got.shape}, not {value.shape}"
            a, b = got.astype(np.float64).ravel(), value.astype(np.float64).ravel()
            cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-30))
            if not cosine >= LEAST_COSINE:
                return f"output {name!r} has cosine {cosine:.3f} with the reference's"
        if len(self.known) < _MOST_KNOWN:
            self.known.add(tensors)
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
        self._begun = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, question: Question, since: float) -> None:
        self._question, self._since = question, since
        self.transport.write(question.request)

    def data_received(self, data: bytes) -> None:
        if self._begun:
            data = self._begun + data
        end = data.find(b"\r\n\r\n") + 4
        question = self._question
        if end < 4 or question is None or len(data) < end + (_number(data, _LENGTH, end) or 0):
            self._begun = data
            return
        answered = time.perf_counter()
        self._question, self._begun = None, b""
        self.load.answered(self, question, self._since, answered, data, end)

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
        drawn = random.Random(seed).choices(questions, k=_DRAWN)
        self.question = itertools.cycle(drawn).__next__
        """Whose turn it is."""
        self._seed = seed
        self._timed_from = 0.0

    def answered(
        self, connection: Connection, question: Question, since: float, at: float, answer: bytes, end: int
    ) -> None:
        """`answer`, whose head ends at `end`, came at the moment `at` to what was planned for `since`."""
        fault = question.fault(answer, end)
        if fault is not None:
            self.account.wrong(question.model, fault)
        elif since >= self._timed_from:
            self.account.answered(question.model, at - since)
        if self.waiting:
            connection.ask(*self.waiting.popleft())
        elif self.asking_again:
            connection.ask(self.question(), time.perf_counter())
        else:
            self.free.append(connection)

    def plan(self, planned: float) -> None:
        """Ask now what was planned for then, or as soon as a connection is free."""
        if self.free:
            self.free.popleft().ask(self.question(), planned)
        else:
            self.waiting.append((self.question(), planned))

    async def run(
        self, port: int, connections: int, rate: float | None, seconds: float, window_s: float, poisson: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        made = [
            (await loop.create_connection(lambda: Connection(self), "127.0.0.1", port))[1] for _ in range(connections)
        ]
        self.free.extend(made)
        ticks, started = None, time.perf_counter()
        if rate is None:
            self.asking_again = True
            while self.free:
                self.free.popleft().ask(self.question(), time.perf_counter())
        else:
            ticks = Ticks(TICK_S, self._planner(rate, poisson))
            started = ticks.start()
        begun = window = self._timed_from = started + WARM_UP_S
        windows = 0
        while (now := time.perf_counter()) < begun + seconds:
            if now - window >= window_s:
                self.tell(windows, now - window)
                window, windows = now, windows + 1
            await asyncio.sleep(min(0.1, begun + seconds - now))
        if ticks is not None:
            ticks.stop()
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

    def _planner(self, rate: float, poisson: bool) -> Callable[[int, float], None]:
        """What a tick has to do: plan its requests, evenly many or as many as come by chance."""
        if poisson:
            draw, each = np.random.default_rng(self._seed).poisson, rate * TICK_S

            def by_chance(number: int, moment: float) -> None:
                for _ in range(draw(each)):
                    self.plan(moment)

            return by_chance

        def evenly(number: int, moment: float) -> None:
            for _ in range(int((number + 1) * rate * TICK_S) - int(number * rate * TICK_S)):
                self.plan(moment)

        return evenly

    def tell(self, number: int, seconds: float) -> None:
        for line in self.account.close_window(number, seconds):
            print(json.dumps(line), flush=True)


def _number(answer: bytes, name: bytes, end: int) -> int | None:
    """Value of a header of an answer whose head ends at `end`, whatever the case of its name."""
    start = answer.find(name, 0, end)
    if start < 0:
        answer = answer[:end].lower()
        start = answer.find(name)
    return None if start < 0 else int(answer[start + len(name) : answer.index(b"\r\n", start + 2)])


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

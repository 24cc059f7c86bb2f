"""Ask a model the same known questions without pause, in a thread, and keep account of every answer.

The proof that nothing fails and nothing is wrong while variants are published is made of this: no retries, every
failure kept, every answer judged.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from gateway.client import Client, ClientError
from gateway.client.retry import Retry

Inputs = Mapping[str, np.ndarray]
Judge = Callable[[int, Mapping[str, np.ndarray]], str | None]
"""Question number and outputs -> what is wrong with them, or None."""


@dataclass
class Account:
    """What became of the questions: `answers` by variant, texts of failures and of wrong answers, seconds of each."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return sum(self.answers.values()) + len(self.failures)


class Asking:
    """Asks from `__enter__` to `__exit__`; `threads` at once, each pausing `pause_s` between two questions."""

    def __init__(
        self, url: str, model: str, questions: Sequence[Inputs], judge: Judge, *, threads: int = 1, pause_s: float = 0.0
    ) -> None:
        self.account = Account()
        self._url, self._model, self._questions, self._judge, self._pause_s = url, model, questions, judge, pause_s
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(threads)]

    def _ask(self, first: int) -> None:
        with Client(self._url, retry=Retry(attempts=1)) as client:
            number = first
            while not self._stop.wait(self._pause_s):
                self._one(client, number % len(self._questions))
                number += len(self._threads)

    def _one(self, client: Client, number: int) -> None:
        started = time.perf_counter()
        try:
            answer = client.predict(self._model, self._questions[number])
        except ClientError as exc:
            with self._lock:
                self.account.failures.append(f"{type(exc).__name__}: {exc}")
            return
        seconds, fault = time.perf_counter() - started, self._judge(number, answer)
        with self._lock:
            self.account.answers[answer.variant or "unnamed"] += 1
            self.account.seconds.append(seconds)
            if fault is not None:
                self.account.wrong.append(f"question {number}, answered by {answer.variant}: {fault}")

    def __enter__(self) -> Account:
        for thread in self._threads:
            thread.start()
        return self.account

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)


def first_answer(url: str, model: str, inputs: Inputs, patience_s: float = 90.0) -> str | None:
    """Ask a model that was just registered until it answers, without the client's pauses; the variant that did."""
    deadline = time.monotonic() + patience_s
    with Client(url, retry=Retry(attempts=1)) as client:
        while True:
            try:
                return client.predict(model, inputs).variant
            except ClientError as exc:
                if exc.status != 503 or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)


def near(expected: Sequence[Mapping[str, np.ndarray]], cosine: float = 0.95) -> Judge:
    """Judges an answer right when every output points where the expected one does: another row's answer does not."""

    def judge(number: int, outputs: Mapping[str, np.ndarray]) -> str | None:
        for name, value in expected[number].items():
            got = outputs.get(name)
            if got is None or got.shape != value.shape:
                return f"output {name!r} is {None if got is None else got.shape}, not {value.shape}"
            a, b = got.astype(np.float64).ravel(), value.astype(np.float64).ravel()
            reached = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-30))
            if not reached >= cosine:
                return f"output {name!r} has cosine {reached:.3f} with the reference's"
        return None

    return judge

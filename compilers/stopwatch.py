"""The child that times one artifact: it opens it and runs it when told, and says how long each run took.

Lines of JSON over pipes. In: {"rows": 8, "warm_s": 0.4} or {"rows": 8, "runs": 20}. Out, first: {"ready": true}; then
an answer a line: {"ns": [...], "peak_memory_bytes": ...}, or {"refused": "..."} and the end. It ends when its input
does, so a parent that dies leaves nothing running.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import msgspec

from compilers.feed import Feed
from compilers.steps import arguments, open_artifact, peak_memory_bytes
from compilers.targets import Session, TargetFailed, Tensors
from model_store.entities import Signature

WINDOW, STABLE_WINDOWS, STABLE_WITHIN = 5, 3, 1.1
"""Warm when three windows running have medians within 10 % of one another (Model Navigator's rule)."""


def main() -> None:
    # Runtimes may print: whatever they say must not land among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    params, inputs = arguments(sys.argv[1:])
    try:
        serve(params, inputs, answers)
    except TargetFailed as exc:
        _say(answers, {"refused": str(exc)})


def serve(params: dict[str, Any], inputs: dict[str, Path], answers: TextIO) -> None:
    session = open_artifact(params, inputs)
    signature = msgspec.convert(params["signature"], Signature)
    feed = Feed.of(signature, inputs.get("samples"), params["guess"], rowwise=params["rowwise"])
    prepared: dict[int, Tensors] = {}
    gc.disable()  # a collection in the middle of a run is not the model's time
    _say(answers, {"ready": True})
    for line in sys.stdin:
        asked = msgspec.json.decode(line)
        if asked["rows"] not in prepared:
            prepared = {asked["rows"]: feed.one(asked["rows"])}  # one batch size at a time: it may be large
        tensors = prepared[asked["rows"]]
        ns = warm_up(session, tensors, asked["warm_s"]) if "warm_s" in asked else timed(session, tensors, asked["runs"])
        _say(answers, {"ns": ns, "peak_memory_bytes": peak_memory_bytes()})


def timed(session: Session, inputs: Tensors, runs: int, until: Callable[[], bool] = lambda: False) -> list[int]:
    """Durations of up to `runs` runs, in nanoseconds; `until` may end them early, after the first."""
    clock, took = time.perf_counter_ns, []
    for _ in range(runs):
        started = clock()
        session.run(inputs)
        took.append(clock() - started)
        if until():
            break
    return took


def warm_up(session: Session, inputs: Tensors, seconds: float) -> list[int]:
    """Run until times are stable, two runs at least, `seconds` at most; the last window tells what a run takes."""
    deadline = time.monotonic() + seconds
    first = timed(session, inputs, 1)  # allocates, chooses kernels: nobody's time
    medians: list[int] = []
    window = first
    while len(medians) < STABLE_WINDOWS or max(medians[-STABLE_WINDOWS:]) > STABLE_WITHIN * min(
        medians[-STABLE_WINDOWS:]
    ):
        window = timed(session, inputs, WINDOW, until=lambda: time.monotonic() > deadline)
        medians.append(sorted(window)[len(window) // 2])
        if time.monotonic() > deadline:
            break
    return window


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(msgspec.json.encode(message).decode() + "\n")
    answers.flush()


if __name__ == "__main__":
    main()

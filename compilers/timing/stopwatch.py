"""The child that times one artifact: it opens it and runs it when told, and says how long each run took.

Lines of JSON over pipes. In: {"rows": 8, "warm_s": 0.4}, {"rows": 8, "runs": 20} (as many callers at once as there are
instances, so many runs each) or {"mix": [5, 7, 6]} (one run of each size, in this order). Out, first: {"ready": true};
then an answer a line: {"ns": [...], "wall_ns": ..., "peak_memory_bytes": ...}, or {"refused": "..."} and the end. It
ends when its input does, so a parent that dies leaves nothing running.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import msgspec

from compilers.feed import Feed
from compilers.steps import arguments, open_artifact, peak_memory_bytes
from compilers.targets import Session, TargetFailed, Tensors
from model_store.entities import Signature

KEPT_BYTES = 1 << 28
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
    with ThreadPoolExecutor(instances := params.get("instances", 1)) as callers:
        _say(answers, {"ready": True})
        for line in sys.stdin:
            asked = msgspec.json.decode(line)
            for rows in asked.get("mix") or (asked["rows"],):
                _prepare(prepared, rows, feed)
            if "mix" in asked:
                ns = [each for rows in asked["mix"] for each in timed(session, prepared[rows], 1)]
            elif "warm_s" in asked:
                ns = warm_up(session, prepared[asked["rows"]], asked["warm_s"], instances)
            elif instances == 1:
                ns = timed(session, prepared[asked["rows"]], asked["runs"])
            else:
                ns, wall_ns = crowd(callers, instances, session, prepared[asked["rows"]], asked["runs"])
                _say(answers, {"ns": ns, "wall_ns": wall_ns, "peak_memory_bytes": peak_memory_bytes()})
                continue
            _say(answers, {"ns": ns, "wall_ns": sum(ns), "peak_memory_bytes": peak_memory_bytes()})


def _prepare(prepared: dict[int, Tensors], rows: int, feed: Feed) -> None:
    """Inputs of several batch sizes are kept while they are small."""
    if rows not in prepared:
        if sum(array.nbytes for tensors in prepared.values() for array in tensors.values()) > KEPT_BYTES:
            prepared.clear()
        prepared[rows] = feed.one(rows)


def crowd(
    callers: ThreadPoolExecutor, instances: int, session: Session, inputs: Tensors, runs: int
) -> tuple[list[int], int]:
    """`instances` callers at once, `runs` runs each: how long each run took, and how long all of them together.

    Only the latter tells what several instances are worth: while a caller waits for its turn nothing of it runs.
    """
    ready = threading.Barrier(instances)

    def call(_: int) -> tuple[int, list[int], int]:
        ready.wait()
        began = time.perf_counter_ns()
        took = timed(session, inputs, runs)
        return began, took, time.perf_counter_ns()

    calls = list(callers.map(call, range(instances)))
    wall_ns = max(end for *_, end in calls) - min(began for began, *_ in calls)
    return [each for _, took, _ in calls for each in took], wall_ns


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


def warm_up(session: Session, inputs: Tensors, seconds: float, instances: int = 1) -> list[int]:
    """Run until times are stable, `seconds` at most; the last window tells what a run takes.

    A run that takes all of the seconds is warm-up enough: it allocates and chooses kernels in a small part of them.
    """
    deadline = time.monotonic() + seconds
    for _ in range(instances):  # whose turn it is goes round
        first = timed(session, inputs, 1)  # allocates, chooses kernels: nobody's time
    medians: list[int] = []
    window = first
    if time.monotonic() > deadline:
        return window
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

"""A random schedule of requests for the batcher, played to its end: what must hold of every batch and every answer.

A schedule is data made from its seed, and the loop's time only jumps (tests/gateway/rehearsal.py): the same seed always
goes the same way. A failure names the seed and prints the schedule; `play(schedule_of(seed))` repeats it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from dataclasses import dataclass

import numpy as np

from gateway.batching.batcher import late
from gateway.errors import GatewayError
from model_store.entities import REFERENCE
from tests.gateway.engines import array, variant
from tests.gateway.rehearsal import Rehearsal, now_ns, rehearse

TICK_S = 0.001
RUN_S = {REFERENCE: 4.0, "near": 2.0, "far": 1.0}
"""Ticks of a run, beside what its rows take."""


@dataclass(frozen=True)
class Request:
    """Comes at tick `at`; the rest in ticks after that, None: never."""

    at: int
    rows: int
    width: int
    deadline: float
    cancelled: float | None
    leaves: float | None
    pin: str | None
    priority: int


@dataclass(frozen=True)
class Schedule:
    seed: int
    max_rows: int
    buckets: tuple[int, ...]
    padded: tuple[int, ...]
    instances: int
    variants: tuple[str, ...]
    refused: float
    """Share of batches that the runtime refuses."""
    deadly: float
    """Share of batches that kill their runner."""
    requests: tuple[Request, ...]


def schedule_of(seed: int) -> Schedule:
    dice = random.Random(seed)
    max_rows = dice.choice([1, 2, 8, 16])
    buckets = tuple(b for b in (1, 2, 4, 8, 16) if b <= max_rows) if dice.random() < 0.5 else ()
    variants = dice.choice([(), (), ("near",), ("far",), ("near", "far")])
    most = dice.choice([1, 5, 5, 40])
    at, requests = 0, []
    for _ in range(dice.randint(1, 12)):
        at += dice.choice([0, 0, 0, 1, 5])
        requests.append(
            Request(
                at=at,
                rows=dice.randint(1, most),
                width=dice.choice([3, 3, 4]),
                deadline=dice.choice([-1, 3, 20, 5000, 5000, 5000, 5000, 5000]),
                cancelled=dice.choice([0, 0.5, 3]) if dice.random() < 0.15 else None,
                leaves=dice.choice([60, 100]) if dice.random() < 0.1 else None,
                pin=dice.choice([REFERENCE, *variants]) if dice.random() < 0.1 else None,
                priority=dice.choice([0, 0, 0, 1, 200]),
            )
        )
    return Schedule(
        seed=seed,
        max_rows=max_rows,
        buckets=buckets,
        padded=tuple(b for b in buckets if b > 1 and dice.random() < 0.5),
        instances=dice.choice([1, 1, 2]),
        variants=variants,
        refused=dice.random() * 0.3 if dice.random() < 0.3 else 0.0,
        deadly=dice.random() * 0.2 if dice.random() < 0.3 else 0.0,
        requests=tuple(requests),
    )


def play(schedule: Schedule) -> Counter[str]:
    """Run a schedule to its end; what became of the requests. Raises AssertionError with the schedule in words."""
    try:
        return rehearse(lambda: _play(schedule))
    except BaseException as exc:
        lines = "\n".join(f"  {request}" for request in schedule.requests)
        rest = dataclasses.replace(schedule, requests=())
        raise AssertionError(f"schedule {schedule.seed}: {exc}\n{rest}\n{lines}") from exc


async def _play(schedule: Schedule) -> Counter[str]:
    dice = random.Random(-schedule.seed)
    variants = [
        variant("m", name, {1: 0.5 if name == "near" else 2.0, 8: 3.0, 16: 4.0}, target=target)
        for name, target in (("near", "here"), ("far", "there"))
        if name in schedule.variants
    ]
    chances = [schedule.refused, schedule.deadly, 1 - schedule.refused - schedule.deadly]
    bench = Rehearsal(
        fate=lambda work: dice.choices(["failed", "died", "done"], chances)[0],
        delay=lambda work: (RUN_S[work.choice.variant] * dice.choice([0.5, 1, 1, 1, 8]) + 0.2 * work.rows) * TICK_S,
        max_rows=schedule.max_rows,
        variants=variants,
        plan={"buckets": schedule.buckets, "padded": schedule.padded},
        instances=schedule.instances,
    )
    seen: Counter[str] = Counter()
    for runner in bench.runners.values():
        runner.dispatch = _watched(runner.dispatch, bench, seen)
    asked = [asyncio.create_task(_ask(bench, number, request)) for number, request in enumerate(schedule.requests)]
    sweeping = asyncio.create_task(_sweep(bench))
    for number, (request, outcome) in enumerate(zip(schedule.requests, await asyncio.gather(*asked), strict=True)):
        if isinstance(outcome, str):
            seen[outcome] += 1
            continue
        assert request.deadline > 0, "what came too late is not paid for"
        assert request.pin in (None, outcome.variant), "a pin is kept"
        (y,) = outcome.outputs
        np.testing.assert_array_equal(array(y), _rows_of(number, request) + 1)
        seen["answered"] += 1
    sweeping.cancel()
    await asyncio.sleep(1)
    assert bench.batcher.empty
    assert bench.batcher.waiting_rows == 0
    assert not any(runner.inflight for runner in bench.runners.values())
    counted = sum(
        size * one[0] for counts in bench.statistics.by_variant.values() for size, one in counts.batches.items()
    )
    assert counted == seen["rows"], "rows that only fill a batch up count for nobody"
    return seen


def _watched(dispatch, bench, seen):
    """What must hold of every batch at the moment it is sent."""

    def checked(work):
        route, choice = bench.route, work.choice
        now = now_ns()
        assert len(work.items) == 1 or work.rows <= max(route.gathered[choice.variant], work.items[0].rows)
        assert len({(item.key, item.pin, item.avoid) for item in work.items}) == 1
        for item in work.items:
            assert not item.answer.done(), "nobody who has gone costs a run"
            assert now <= item.deadline_ns, "nobody who is late costs a run"
        if choice.why not in ("pinned", "fallback"):
            ranked = route.ranked[route.bucket(work.rows)]
            assert ranked.index(choice.variant) <= ranked.index(REFERENCE), "only what is proven in the bucket"
        if work.padded:
            assert work.padded in route.padded[choice.variant]
            assert work.padded > work.rows
        seen["padded"] += bool(work.padded)
        seen["cut"] += sum(type(item.answer).__name__ == "Part" for item in work.items)
        seen[f"on {choice.session.target}"] += 1
        seen[choice.why] += 1
        done = work.done

        def count(*outcome):
            before = sum(one[0] for counts in bench.statistics.by_variant.values() for one in counts.batches.values())
            done(*outcome)
            after = sum(one[0] for counts in bench.statistics.by_variant.values() for one in counts.batches.values())
            seen["rows"] += work.rows * (after - before)

        dispatch(Watched(work, count))

    return checked


class Watched:
    """A batch whose answer is looked at on its way."""

    def __init__(self, work, done):
        self._work, self.done = work, done

    def __getattr__(self, name):
        return getattr(self._work, name)


def _rows_of(number: int, request: Request):
    return np.arange(request.rows * request.width, dtype=np.float32).reshape(-1, request.width) + 1000 * number


async def _ask(bench, number, request):
    await asyncio.sleep(request.at * TICK_S)
    loop = asyncio.get_running_loop()
    left = asyncio.Event()
    gone = None if request.leaves is None else left.wait
    future = bench.submit(
        _rows_of(number, request), request.deadline * TICK_S, request.pin, gone, request.priority
    )  # fmt: skip
    if request.leaves is not None:
        loop.call_later(request.leaves * TICK_S, left.set)
    if request.cancelled is not None:
        loop.call_later(request.cancelled * TICK_S, future.cancel)
    try:
        return await future
    except asyncio.CancelledError:
        return "cancelled"
    except GatewayError as exc:
        return type(exc).__name__


async def _sweep(bench):
    while True:
        await asyncio.sleep(0.025)
        now = now_ns()
        bench.batcher.sweep(now, now - 50_000_000)
        for runner in bench.runners.values():
            for item in runner.items():
                if now > item.deadline_ns:
                    item.fail(late())

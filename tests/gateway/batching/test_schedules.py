"""The batcher under ten thousand random schedules: whatever is cancelled, late, refused, killed, cut or filled up,
neighbours get their own answers, nobody waits for ever, and nobody who has gone costs a run."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter

import numpy as np
import pytest

from gateway.batching.lanes import MOST_OVERTAKINGS
from tests.gateway.batching.schedules import Request, play, schedule_of
from tests.gateway.engines import array
from tests.gateway.rehearsal import Rehearsal, rehearse, rows

SCHEDULES, PART = 10_000, 1_000


@pytest.mark.parametrize("part", range(SCHEDULES // PART))
def test_ten_thousand_random_schedules_strand_nobody_mix_up_nothing_and_pay_for_nobody_who_has_gone(part):
    seen: Counter[str] = Counter()
    for seed in range(part * PART, (part + 1) * PART):
        seen += play(schedule_of(seed))
    assert seen["answered"] > 3 * PART
    rare = ("cancelled", "QueueTimeout", "DeadlineExceeded", "ClientGone", "ModelFailed", "RunnerDied")
    assert min(seen[name] for name in rare) > 0, seen
    assert min(seen[name] for name in ("padded", "cut", "on here", "on there", "overflow")) > PART // 10, seen


def test_the_same_seed_goes_the_same_way_and_a_failure_prints_its_schedule():
    assert play(schedule_of(7)) == play(schedule_of(7))
    assert schedule_of(7) != schedule_of(8)
    broken = dataclasses.replace(schedule_of(7), requests=(Request(0, 2, 0, 5, None, None, None, 0),))
    with pytest.raises(AssertionError, match=r"(?s)^schedule 7: .*Schedule\(seed=7.*Request\(at=0, rows=2, width=0"):
        play(broken)


@pytest.mark.parametrize("part", range(4))
def test_two_thousand_random_schedules_keep_the_order_of_priorities_and_starve_nobody(part):
    seen = Counter()

    async def schedule(seed: int) -> None:
        dice = random.Random(seed)
        limit = dice.choice([1, 2, 4])
        bench = Rehearsal(delay=lambda work: dice.choice([0.0, 0.0005]), max_rows=limit)
        waiting = []
        dispatch = bench.runner.dispatch

        def checked_dispatch(work):
            items = work.items
            assert sum(item.rows for item in items) <= limit or len(items) == 1, "a batch never exceeds max_rows"
            assert len({(item.key, item.pin) for item in items}) == 1
            leader, rest = items[0], items[1:]
            left = [item for item in waiting if item not in items]
            alike = [item for item in left if item.key == leader.key]
            for item in items:
                waiting.remove(item)
                assert not any(other.level == item.level and other.queued_ns < item.queued_ns for other in alike), (
                    "first come, first served within a level"
                )
            assert [item.level for item in rest] == sorted(item.level for item in rest)
            better = [item for item in left if item.level < leader.level]
            if better:  # only whoever has waited longest may go before its betters, and not twice in a row
                assert all(leader.queued_ns <= item.queued_ns for item in left)
                assert bench.overtaken == MOST_OVERTAKINGS
                seen["oldest first"] += 1
            older = [item for item in left if item.queued_ns < leader.queued_ns]
            bench.overtaken = bench.overtaken + 1 if older else 0
            assert bench.overtaken <= MOST_OVERTAKINGS, "nobody is put off for ever"
            seen["overtakings"] += bool(older)
            dispatch(work)

        bench.overtaken = 0
        bench.runner.dispatch = checked_dispatch
        queue = bench.batcher._queue

        def noted_queue(item, front=False):
            waiting.append(item)
            queue(item, front)

        bench.batcher._queue = noted_queue
        futures = []
        for number in range(dice.randint(5, 60)):
            priority = dice.choice([0, 0, 1, 2, 200, 2**40])
            x = rows(dice.choice([1, 1, 1, 2, 5]), number, width=dice.choice([3, 3, 4]))
            futures.append((x, bench.submit(x, priority=priority)))
            if dice.random() < 0.2:
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            for x, future in futures:
                (y,) = (await future).outputs
                np.testing.assert_array_equal(array(y), x + 1)
                seen["answered"] += 1
        assert bench.batcher.empty
        assert bench.batcher.waiting_rows == 0

    for seed in range(part * 500, (part + 1) * 500):
        try:
            rehearse(lambda seed=seed: schedule(seed))
        except AssertionError as exc:
            raise AssertionError(f"schedule {seed}: {exc}") from exc
    assert min(seen["answered"], seen["overtakings"], seen["oldest first"] * 10) > 1200

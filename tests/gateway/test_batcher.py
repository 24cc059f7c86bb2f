"""The batcher under random schedules: whatever is cancelled, late, refused or killed, neighbours get their own answers.

The runner here is a small real thing: it copies inputs to a slot, computes y = x + 1 in numpy after a random time, and
fails, or dies, as the schedule says.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import numpy as np
import pytest

from gateway.batch import fill
from gateway.batcher import MOST_OVERTAKINGS, Batcher
from gateway.blame import Part
from gateway.errors import ClientGone, DeadlineExceeded, GatewayError, ModelFailed, NotReady, QueueTimeout, RunnerDied
from gateway.health import Health
from gateway.ranking import VersionRoute, rank
from gateway.statistics import Statistics
from gateway.tensors import Checked
from gateway.wire import Done, Place
from model_store.entities import Signature, TensorSpec
from tests.gateway.engines import array, tensor, variant

SLOT = 1 << 16
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))


class NumpySession:
    ready, closed, target = True, False, "here"
    row_s: float | None = None


class NumpyRunner:
    """Two slots, one batch at a time, like the real one; `fate(batch)` is done, failed or died."""

    trouble = ""
    slot_bytes = SLOT

    def __init__(self, fate, delay, pump):
        self._fate, self._delay, self._pump = fate, delay, pump
        self._flying = []
        self.batches, self.sent = [], []

    @property
    def has_free_slot(self):
        return len(self._flying) < 2

    def dispatch(self, work):
        slot = bytearray(SLOT)
        places, end = fill(memoryview(slot), work.items)
        self.batches.append([item.rows for item in work.items])
        self.sent.append(list(work.items))
        self._flying.append((work, memoryview(slot), places, end))
        if len(self._flying) == 1:
            asyncio.get_running_loop().call_later(self._delay(), self._finish)

    def _finish(self):
        work, slot, places, end = self._flying.pop(0)
        fate = self._fate(work)
        if fate == "died":
            bystanders, self._flying = self._flying, []
            work.died(RunnerDied("it died", "segv"), Part.CULPRIT)
            for other, *_ in bystanders:
                other.died(RunnerDied("it died", "segv"), Part.BYSTANDER)
        elif fate == "failed":
            work.failed("no")
        else:
            (place,) = places
            x = np.frombuffer(slot, np.float32, place.nbytes // 4, place.offset).reshape(place.shape)
            y = np.frombuffer(slot, np.float32, x.size, end).reshape(x.shape)
            y[...] = x + 1
            done = Place(0, "FP32", place.shape, end, place.nbytes)
            work.done(Done(0, 1, 1, time.monotonic_ns(), time.monotonic_ns(), (done,)), slot)
        if self._flying:
            asyncio.get_running_loop().call_later(self._delay(), self._finish)
        self._pump()


class Bench:
    """A batcher with its runner and a pump, as gateway/runners.py has them for many."""

    def __init__(self, fate=lambda work: "done", delay=lambda: 0.0, max_rows=16, variants=None):
        self.health, self.statistics = Health(), Statistics()
        every = {v.id: v for v in (variant("m"), *(variants or ()))}
        buckets, ranked = rank(every.values(), False)
        route = VersionRoute("m", "1", SIGNATURE, every, buckets, ranked, max_rows=max_rows)
        object.__setattr__(route, "sessions", {one: NumpySession() for one in every})
        self.runner = NumpyRunner(fate, delay, self.pump)
        self.batcher = Batcher(
            route, self.health, lambda target: self.runner, lambda batcher, fresh: self.soon(), self.statistics
        )
        self._soon = False

    def soon(self):
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self.pump)

    def pump(self):
        self._soon = False
        while self.runner.has_free_slot and self.batcher.dispatch():
            pass

    def submit(self, x, timeout_s=5.0, pin=None, gone=None, priority=0):
        checked = Checked((tensor(x),), len(x), x.nbytes, (x.shape[1:],))
        return self.batcher.submit(checked, time.monotonic_ns() + int(timeout_s * 1e9), pin, gone, priority)


def rows(n, value, width=4):
    return np.full((n, width), value, np.float32)


def test_thousands_of_random_schedules_strand_nobody_and_mix_up_nothing():
    outcomes = Counter()

    async def schedule(seed: int) -> None:
        dice = random.Random(seed)
        refuse = dice.random() * 0.3 if dice.random() < 0.5 else 0.0
        die = dice.random() * 0.2 if dice.random() < 0.4 else 0.0

        def fate(work):
            return dice.choices(["failed", "died", "done"], [refuse, die, 1 - refuse - die])[0]

        bench = Bench(fate, lambda: dice.choice([0.0, 0.0, 0.0005]), max_rows=dice.choice([1, 2, 8, 16]))
        waiting = []
        for number in range(dice.randint(1, 12)):
            x = rows(dice.randint(1, 5), seed * 100 + number, width=dice.choice([3, 4]))
            late = dice.random() < 0.1
            future = bench.submit(x, timeout_s=-1 if late else 5)
            waiting.append((x, future, late))
            if dice.random() < 0.2:
                victim = dice.choice(waiting)[1]
                asyncio.get_running_loop().call_later(dice.choice([0, 0.0005]), victim.cancel)
            if dice.random() < 0.3:
                await asyncio.sleep(0)
        pending = {future for _, future, _ in waiting}
        end = time.monotonic() + 20
        while pending and time.monotonic() < end:
            _, pending = await asyncio.wait(pending, timeout=0.05)
            bench.batcher.sweep(time.monotonic_ns(), 0)
        assert not pending, f"schedule {seed} stranded {len(pending)}"
        for x, future, late in waiting:
            if future.cancelled():
                outcomes["cancelled"] += 1
            elif (error := future.exception()) is not None:
                assert isinstance(error, GatewayError)
                assert isinstance(error, DeadlineExceeded | NotReady) or not late
                outcomes[type(error).__name__] += 1
            else:
                assert not late, "late items must not be paid for"
                (y,) = future.result().outputs
                np.testing.assert_array_equal(array(y), x + 1)
                outcomes["answered"] += 1
        assert bench.batcher.empty
        assert bench.batcher.waiting_rows == 0

    async def all_of_them():
        for start in range(0, 3000, 100):
            await asyncio.gather(*(schedule(seed) for seed in range(start, start + 100)))

    asyncio.run(all_of_them())
    assert outcomes["answered"] > 8000
    assert min(outcomes[name] for name in ("cancelled", "QueueTimeout", "ModelFailed", "RunnerDied")) > 10


def test_thousands_of_random_schedules_keep_the_order_of_priorities_and_starve_nobody():
    seen = Counter()

    async def schedule(seed: int) -> None:
        dice = random.Random(seed)
        limit = dice.choice([1, 2, 4])
        bench = Bench(delay=lambda: dice.choice([0.0, 0.0005]), max_rows=limit)
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

    async def all_of_them():
        for start in range(0, 2000, 100):
            await asyncio.gather(*(schedule(seed) for seed in range(start, start + 100)))

    asyncio.run(all_of_them())
    assert min(seen["answered"], seen["overtakings"], seen["oldest first"] * 10) > 5000


def test_a_steady_stream_of_urgent_requests_does_not_starve_the_others():
    async def test():
        bench = Bench(max_rows=1)
        patient = bench.submit(rows(1, 0), priority=9)
        urgent = [bench.submit(rows(1, n), priority=1) for n in range(100)]
        await patient
        assert sum(future.done() for future in urgent) <= MOST_OVERTAKINGS + 1
        await asyncio.gather(*urgent)

    asyncio.run(test())


def test_dead_and_late_items_never_reach_a_runner():
    async def test():
        bench = Bench()
        gone, late, live = bench.submit(rows(1, 1)), bench.submit(rows(1, 2), timeout_s=-1), bench.submit(rows(1, 3))
        gone.cancel()
        await live
        with pytest.raises(QueueTimeout, match="Request timeout expired"):
            await late
        assert bench.runner.batches == [[1]]

    asyncio.run(test())


def test_what_arrives_in_one_tick_leaves_in_one_batch_up_to_the_limit():
    async def test():
        bench = Bench(max_rows=8)
        await asyncio.gather(*(bench.submit(rows(1, n)) for n in range(20)))
        assert bench.runner.batches == [[1] * 8, [1] * 8, [1] * 4]

    asyncio.run(test())


def test_other_shapes_and_other_pins_are_other_batches():
    async def test():
        bench = Bench(variants=[variant("m", "fast", {1: 2.0})])
        futures = [bench.submit(rows(1, n, width=3 + n % 2)) for n in range(4)]
        futures += [bench.submit(rows(1, n), pin="reference") for n in range(2)]
        answers = await asyncio.gather(*futures)
        assert sorted(map(len, bench.runner.batches)) == [2, 2, 2]
        assert [answer.variant for answer in answers] == ["fast"] * 4 + ["reference"] * 2
        assert [answer.why for answer in answers] == ["fastest"] * 4 + ["pinned"] * 2

    asyncio.run(test())


def test_a_request_larger_than_a_batch_runs_alone_and_whole():
    async def test():
        bench = Bench(max_rows=4)
        small, large, other = bench.submit(rows(1, 1)), bench.submit(rows(9, 2)), bench.submit(rows(1, 3))
        answers = await asyncio.gather(small, large, other)
        assert bench.runner.batches == [[1], [9], [1]]
        assert array(answers[1].outputs[0]).shape == (9, 4)

    asyncio.run(test())


def test_a_refused_batch_is_tried_item_by_item_and_then_on_the_reference():
    def fate(work):
        return "failed" if work.choice.variant == "fast" and any(item.rows == 3 for item in work.items) else "done"

    async def test():
        bench = Bench(fate, variants=[variant("m", "fast", {1: 2.0})])
        answers = await asyncio.gather(*(bench.submit(rows(n, n)) for n in (1, 2, 3, 4)))
        assert [answer.variant for answer in answers] == ["fast", "fast", "reference", "fast"]

    asyncio.run(test())


def test_a_pinned_request_is_never_answered_by_another_variant():
    async def test():
        bench = Bench(
            lambda work: "failed" if work.choice.variant == "fast" else "done",
            variants=[variant("m", "fast", {1: 2.0})],
        )
        with pytest.raises(ModelFailed):
            await bench.submit(rows(1, 1), pin="fast")

    asyncio.run(test())


def test_a_prefetched_batch_survives_the_death_of_the_one_before_it():
    deaths = iter(["died"])

    async def test():
        bench = Bench(lambda work: next(deaths, "done"), max_rows=1)
        answers = await asyncio.gather(*(bench.submit(rows(1, n)) for n in range(3)))
        assert [float(array(answer.outputs[0])[0, 0]) for answer in answers] == [1.0, 2.0, 3.0]

    asyncio.run(test())


def test_a_client_that_leaves_withdraws_its_waiting_request():
    async def test():
        bench = Bench(delay=lambda: 0.2, max_rows=1)
        left = asyncio.Event()
        running, prefetched = bench.submit(rows(1, 0)), bench.submit(rows(1, 1))
        waiting = bench.submit(rows(1, 2), gone=left.wait)
        await asyncio.sleep(0)
        bench.batcher.sweep(time.monotonic_ns(), watch_before_ns=time.monotonic_ns())
        left.set()
        with pytest.raises(ClientGone):
            await waiting
        await asyncio.gather(running, prefetched)
        assert len(bench.runner.batches) == 2

    asyncio.run(test())


def test_inputs_that_fit_no_slot_are_refused_in_words():
    async def test():
        bench = Bench()
        with pytest.raises(ModelFailed, match="do not fit a slot of 65536"):
            await bench.submit(rows(1, 1, width=SLOT))

    asyncio.run(test())

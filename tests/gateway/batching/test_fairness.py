"""Turns among versions are fair in time: by exact counts on a jumping clock, and by the clock with real models."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gateway.batching.fairness import Turns
from tests import zoo
from tests.gateway.engines import ask, deploy, engine
from tests.gateway.rehearsal import Rehearsal, rehearse, rows


class Shared:
    """Several versions in front of one runner; each batch takes what its version takes."""

    def __init__(self, *seconds):
        self.turns, self.took = Turns(), dict.fromkeys(range(len(seconds)), 0.0)
        self.benches = [Rehearsal(max_rows=1) for _ in seconds]
        self.seconds = {
            bench.batcher: (nth, s) for nth, (bench, s) in enumerate(zip(self.benches, seconds, strict=True))
        }
        self.runner = self.benches[0].runner
        self.runner._delay = self.delay
        self.runner._pump = self.pump
        for bench in self.benches:
            bench.batcher._runner_of = lambda target: self.runner
            bench.batcher._wake = lambda batcher, fresh: (self.turns.join(batcher), self.soon())
        self._soon = False

    def delay(self, work):
        nth, seconds = self.seconds[work.owner]
        self.took[nth] += seconds
        return seconds

    def soon(self):
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self.pump)

    def pump(self):
        self._soon = False
        self.turns.hand_out(lambda: self.runner.has_free_slot)

    def clients(self, nth, count):
        async def client():
            while True:
                await self.benches[nth].submit(rows(1, nth), timeout_s=1e6)

        return [asyncio.create_task(client()) for _ in range(count)]


@pytest.mark.parametrize("seconds", [(0.050, 0.001), (0.001, 0.050), (0.010, 0.010), (0.050, 0.001, 0.007)])
def test_versions_that_always_wait_get_as_much_time_whatever_their_batches_take(seconds):
    async def test():
        shared = Shared(*seconds)
        for nth in range(len(seconds)):
            shared.clients(nth, 4)
        await asyncio.sleep(6)
        fair = 6 / len(seconds)
        assert all(took == pytest.approx(fair, rel=0.06) for took in shared.took.values()), shared.took

    rehearse(test)


def test_nobody_pays_for_what_it_had_alone_and_nobody_saves_up_time_while_idle():
    async def test():
        shared = Shared(0.050, 0.001)
        shared.clients(0, 4)
        await asyncio.sleep(10)
        quick = shared.clients(1, 4)
        before = dict(shared.took)
        await asyncio.sleep(4)
        assert shared.took[0] - before[0] == pytest.approx(2, rel=0.08)
        for task in quick:
            task.cancel()
        await asyncio.sleep(10)
        shared.clients(1, 4)
        before = dict(shared.took)
        await asyncio.sleep(4)
        assert shared.took[0] - before[0] == pytest.approx(2, rel=0.08)

    rehearse(test)


def test_one_client_of_a_quick_version_waits_for_two_slow_batches_at_most():
    async def test():
        shared, loop = Shared(0.050, 0.001), asyncio.get_running_loop()
        shared.clients(0, 8)
        await asyncio.sleep(1.007)
        waits = []
        for _ in range(20):
            since = loop.time()
            await shared.benches[1].submit(rows(1, 1))
            waits.append(loop.time() - since)
        assert max(waits) <= 0.102

    rehearse(test)


def test_a_slow_and_a_quick_real_model_share_a_real_runner_fairly_in_time(tmp_path):
    """Turns by batches would let the quick one run once for each run of the slow one, which takes a hundred times as
    long. How much more it gets is up to the clients, which share the cores; the exact shares are tested above."""

    async def test():
        async with engine() as serving:
            slow, quick = {"x": np.ones((64, 1024), np.float32)}, {"x": np.ones((1, 64), np.float32)}
            await deploy(serving, "slow", zoo.big(64), tmp_path, max_rows=1)
            await deploy(serving, "quick", zoo.mlp(), tmp_path, max_rows=1)
            stop = False

            async def client(name, inputs):
                while not stop:
                    await ask(serving, name, inputs)

            clients = [asyncio.create_task(client("slow", slow)) for _ in range(4)]
            clients += [asyncio.create_task(client("quick", quick)) for _ in range(64)]
            await asyncio.sleep(2.0)
            stop = True
            await asyncio.gather(*clients)
            ran = {key.model: counts.executions for key, counts in serving.statistics.by_variant.items()}
            assert ran["slow"] >= 3, ran
            assert ran["quick"] > 10 * ran["slow"], ran

    asyncio.run(asyncio.wait_for(test(), 60))

"""Routing by load, on a clock that jumps: overflow to other devices and on one, live figures, and who never moves."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from gateway.routing.contest import Contest
from gateway.routing.latency import ENOUGH, START_UP, Figure, Latency
from model_store.entities import REFERENCE
from tests.gateway.engines import variant
from tests.gateway.rehearsal import Rehearsal, rehearse, rows

FAST = "openvino-cpu.fast"


class Traffic:
    """A version with a fast variant beside its reference, and clients that ask again and again.

    `seconds(variant)`: of a run; `shared`: how much slower runs are while the other runner runs as well. `measured`:
    what the evidence says of the reference.
    """

    def __init__(self, seconds, targets=("ort-cpu", "openvino-cpu"), shared=1.0, speedup=2.0, noise=0.0, measured=None):
        self.seconds, self.shared, self.noise = seconds, shared, noise
        self.dice = random.Random(1)
        fast = variant("m", FAST, {1: speedup}, target=targets[1])
        timing = replace(fast.evidence.timings[0], reference_p50_s=measured or seconds(REFERENCE))
        fast = replace(fast, evidence=replace(fast.evidence, timings=(timing,)))
        self.bench = Rehearsal(delay=self.delay, max_rows=1, variants=[fast], home=targets[0])
        for name, session in self.bench.route.sessions.items():
            session.live.start(seconds(name))  # as warming up does
        self.batches, self.time = Counter(), Counter()

    def delay(self, work):
        took = self.seconds(work.choice.variant) * (1 + self.noise * self.dice.random())
        took *= 20 if self.noise and self.dice.random() < 0.01 else 1
        beside = [runner for target, runner in self.bench.runners.items() if target != work.session.target]
        took *= self.shared if any(runner.inflight for runner in beside) else 1.0
        self.batches[work.choice.variant, work.choice.why] += 1
        self.time[work.choice.variant] += took
        return took

    async def run(self, clients, seconds, pause=0.0):
        """What was answered meanwhile, by variant."""
        counts = Counter()

        async def client(number):
            while True:
                answer = await self.bench.submit(rows(1, number), timeout_s=1e6)
                counts[answer.variant] += 1
                if pause:
                    await asyncio.sleep(pause * (0.5 + self.dice.random()))

        tasks = [asyncio.create_task(client(number)) for number in range(clients)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(1)
        return counts


def of(fast, reference):
    return lambda name: fast if name == FAST else reference


def test_without_load_everything_goes_to_the_fastest():
    async def test():
        traffic = Traffic(of(0.010, 0.020), targets=("here", "there"))
        counts = await traffic.run(clients=1, seconds=5)
        assert set(counts) == {FAST}
        assert set(traffic.batches) == {(FAST, "fastest")}

    rehearse(test)


def test_a_busy_runner_sheds_to_another_device_what_is_done_sooner_there():
    async def test():
        slow = Traffic(of(0.010, 1.000), targets=("here", "there"), speedup=100.0)
        alone = await slow.run(clients=8, seconds=10)
        assert alone[REFERENCE] == 0, "eight who wait are done here before one would be there"
        traffic = Traffic(of(0.010, 0.020), targets=("here", "there"))
        counts = await traffic.run(clients=8, seconds=10)
        assert counts[FAST] == pytest.approx(1000, rel=0.02)
        assert counts[REFERENCE] == pytest.approx(500, rel=0.05)
        assert traffic.batches[REFERENCE, "overflow"] > 450

    rehearse(test)


def test_runners_of_one_device_share_the_load_only_when_that_was_measured_to_pay():
    """At half the speed each, two runners answer less than the fast one alone; nobody notices more than the tries."""

    async def test():
        slower = Traffic(of(0.010, 0.020), shared=2.0)
        counts = await slower.run(clients=8, seconds=40)
        assert slower.batches[REFERENCE, "overflow"] == 0
        assert 0 < slower.batches[REFERENCE, "tried"] < 25
        assert counts[FAST] > 0.97 * 4000
        free = Traffic(of(0.010, 0.020), shared=1.05)
        counts = await free.run(clients=8, seconds=40)
        assert free.batches[REFERENCE, "overflow"] > 1200
        assert counts.total() > 1.25 * 4000

    rehearse(test)


def test_when_side_by_side_stops_paying_it_stops():
    async def test():
        traffic = Traffic(of(0.010, 0.020), shared=1.05)
        await traffic.run(clients=8, seconds=40)
        traffic.shared = 2.5
        await traffic.run(clients=8, seconds=20)
        before = traffic.batches[REFERENCE, "overflow"]
        await traffic.run(clients=8, seconds=40)
        assert traffic.batches[REFERENCE, "overflow"] - before < 60

    rehearse(test)


def test_a_variant_that_turns_out_slower_live_loses_its_place_and_has_it_back_when_it_is_fast_again():
    async def test():
        live = {FAST: 0.015, REFERENCE: 0.010}
        traffic = Traffic(lambda name: live[name], speedup=1.2)
        await traffic.run(clients=1, seconds=25)
        late = await traffic.run(clients=1, seconds=10)
        assert late[REFERENCE] > 0.99 * late.total()
        assert traffic.batches[REFERENCE, "live"] > 900
        live[FAST] = 0.008
        await traffic.run(clients=1, seconds=90)
        assert (await traffic.run(clients=1, seconds=10))[REFERENCE] <= 2

    rehearse(test)


@pytest.mark.parametrize("clients", [1, 3])
def test_noise_and_a_machine_that_is_slower_than_when_it_was_measured_move_nobody(clients):
    async def test():
        traffic = Traffic(of(0.030, 0.036), shared=2.2, noise=0.5, speedup=1.2, measured=0.010)
        await traffic.run(clients=clients, seconds=200, pause=0.05)
        assert traffic.batches[REFERENCE, "live"] == 0
        assert traffic.time[REFERENCE] < 0.015 * traffic.time.total()

    rehearse(test)


def test_tries_take_a_hundredth_of_the_time_and_then_a_thousandth():
    contest, now, cost_s = Contest("a"), 0, 0.010
    spent = {False: 0.0, True: 0.0}
    for known in spent:
        for _ in range(10_000):
            now += 50_000_000
            contest.lead_s += 0.050
            spent[known] += cost_s if contest.may_try(cost_s, known, now) else 0.0
    assert spent[False] == pytest.approx(0.01 * 500, rel=0.05)
    assert spent[True] == pytest.approx(0.001 * 500, rel=0.05)


def test_a_rival_needs_several_tries_and_a_clear_margin_the_preferred_one_less():
    def led(edge, tries, preferred):
        contest = Contest("leader")
        for _ in range(START_UP + tries):
            contest.seen("rival", edge, preferred)
        return contest.leader

    assert led(0.5, ENOUGH - 1, "leader") == "leader"
    assert led(0.5, ENOUGH, "leader") == "rival"
    assert led(0.93, 50, "leader") == "leader"
    assert led(1.02, 50, "rival") == "rival"
    assert led(1.05, 50, "rival") == "leader"


def test_a_batch_of_a_kind_that_was_not_seen_is_expected_to_be_off_as_much_as_those_that_were():
    async def test():
        traffic = Traffic(of(0.030, 0.040), measured=0.004, targets=("here", "there"))
        await traffic.run(clients=1, seconds=1)
        bench = traffic.bench
        predicted = bench.batcher.forecast.predictions(bench.route, 4, lambda *_: True)
        assert list(predicted) == [FAST, REFERENCE]
        assert predicted[FAST].measured_s == pytest.approx(4 * 0.002)
        assert predicted[FAST].run_s == pytest.approx(4 * 0.030, rel=0.01)
        assert predicted[REFERENCE].run_s == pytest.approx(2 * predicted[FAST].run_s)

    rehearse(test)


def test_a_figure_is_the_median_without_the_first_runs():
    figure = Figure()
    for value in (9.0, 9.0, 1.0, 1.1, 50.0, 0.9, 1.0):
        figure.add(value)
    assert (figure.count, figure.typical) == (5, 1.0)


def test_kinds_of_runs_have_figures_of_their_own_and_unknown_ones_go_by_the_last():
    latency = Latency()
    assert latency.expected_s(8, 100) == 1.0
    latency.start(0.5)
    assert latency.expected_s(2, 100) == 1.0
    for _ in range(START_UP + 1):
        latency.add(1, 100, 0.010)
        latency.add(8, 100, 0.024)
        latency.add(8, 5000, 0.240)
        latency.add(8, 100, 0.048, crowded=True)
    assert latency.expected_s(1, 100) == pytest.approx(0.010)
    assert latency.expected_s(8, 100) == pytest.approx(0.024)
    assert latency.expected_s(6, 100) == pytest.approx(0.018)
    assert latency.expected_s(8, 5000) == pytest.approx(0.240)
    assert latency.figure(8, 100, crowded=True).count == 1
    assert latency.expected_s(64, 100) == pytest.approx(0.384), "the last figure seen"

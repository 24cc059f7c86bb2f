"""The batcher, rehearsed: what goes together, what goes first, who is answered by what, and who never costs a run."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gateway.batching.lanes import MOST_OVERTAKINGS
from gateway.errors import ClientGone, ModelFailed, QueueTimeout
from tests.gateway.engines import array, variant
from tests.gateway.rehearsal import SLOT, Rehearsal, now_ns, rehearse, rows


def test_a_steady_stream_of_urgent_requests_does_not_starve_the_others():
    async def test():
        bench = Rehearsal(max_rows=1)
        patient = bench.submit(rows(1, 0), priority=9)
        urgent = [bench.submit(rows(1, n), priority=1) for n in range(100)]
        await patient
        assert sum(future.done() for future in urgent) <= MOST_OVERTAKINGS + 1
        await asyncio.gather(*urgent)

    rehearse(test)


def test_dead_and_late_items_never_reach_a_runner():
    async def test():
        bench = Rehearsal()
        gone, late, live = bench.submit(rows(1, 1)), bench.submit(rows(1, 2), timeout_s=-1), bench.submit(rows(1, 3))
        gone.cancel()
        await live
        with pytest.raises(QueueTimeout, match="Request timeout expired"):
            await late
        assert bench.runner.batches == [[1]]

    rehearse(test)


def test_what_arrives_in_one_tick_leaves_in_one_batch_up_to_the_limit():
    async def test():
        bench = Rehearsal(max_rows=8)
        await asyncio.gather(*(bench.submit(rows(1, n)) for n in range(20)))
        assert bench.runner.batches == [[1] * 8, [1] * 8, [1] * 4]

    rehearse(test)


def test_other_shapes_and_other_pins_are_other_batches():
    async def test():
        bench = Rehearsal(variants=[variant("m", "fast", {1: 2.0}, target="here")])
        futures = [bench.submit(rows(1, n, width=3 + n % 2)) for n in range(4)]
        futures += [bench.submit(rows(1, n), pin="reference") for n in range(2)]
        answers = await asyncio.gather(*futures)
        assert sorted(map(len, bench.runner.batches)) == [2, 2, 2]
        assert [answer.variant for answer in answers] == ["fast"] * 4 + ["reference"] * 2
        assert [answer.why for answer in answers] == ["fastest"] * 4 + ["pinned"] * 2

    rehearse(test)


def numbered(n, width=4):
    return np.arange(n * width, dtype=np.float32).reshape(n, width)


def test_a_request_larger_than_a_batch_is_cut_runs_in_parts_and_is_answered_as_one():
    async def test():
        bench = Rehearsal(max_rows=4)
        small, large, other = bench.submit(rows(1, 1)), bench.submit(numbered(9)), bench.submit(rows(1, 3))
        answers = await asyncio.gather(small, large, other)
        assert bench.runner.batches == [[1], [4], [4], [1, 1]]
        np.testing.assert_array_equal(array(answers[1].outputs[0]), numbered(9) + 1)
        assert answers[1].batch_rows == 4
        (counts,) = bench.statistics.by_variant.values()
        assert counts.executions == 4

    rehearse(test)


def test_a_request_that_is_cut_runs_on_every_instance_at_once():
    async def test():
        loop = asyncio.get_running_loop()
        for instances, seconds in ((1, 4.0), (2, 2.0), (4, 1.0)):
            bench = Rehearsal(max_rows=4, delay=lambda work: 1.0, instances=instances)
            since = loop.time()
            answer = await bench.submit(numbered(16), timeout_s=60)
            assert loop.time() - since == pytest.approx(seconds)
            np.testing.assert_array_equal(array(answer.outputs[0]), numbered(16) + 1)
            assert answer.end_ns - answer.start_ns == pytest.approx(seconds * 1e9, rel=1e-3)

    rehearse(test)


def test_the_parts_of_a_request_that_is_cancelled_or_late_are_withdrawn():
    async def test():
        bench = Rehearsal(max_rows=4, delay=lambda work: 1.0)
        gone, late = bench.submit(numbered(40), timeout_s=60), bench.submit(numbered(40), timeout_s=1.5)
        await asyncio.sleep(0.5)
        gone.cancel()
        neighbour = bench.submit(rows(1, 7), timeout_s=60)
        await asyncio.sleep(1.0)
        bench.batcher.sweep(now_ns(), 0)
        with pytest.raises(QueueTimeout):
            await late
        np.testing.assert_array_equal(array((await neighbour).outputs[0]), rows(1, 8))
        assert bench.runner.batches == [[4], [4], [4], [1]], "two parts were in slots, one more of the late one ran"
        assert bench.batcher.empty
        assert bench.batcher.waiting_rows == 0

    rehearse(test)


def test_a_part_that_fails_fails_the_request_and_the_rest_never_runs():
    async def test():
        bench = Rehearsal(lambda work: "failed", max_rows=4)
        with pytest.raises(ModelFailed):
            await bench.submit(numbered(40))
        await asyncio.sleep(0.01)
        assert len(bench.runner.batches) <= 3
        assert bench.batcher.empty

    rehearse(test)


def test_requests_of_models_whose_rows_see_one_another_are_never_cut():
    async def test():
        bench = Rehearsal(max_rows=1)
        await bench.submit(numbered(9))
        assert bench.runner.batches == [[9]]

    rehearse(test)


def test_batches_end_where_the_curve_stops_paying():
    async def test():
        for buckets, sizes in (((), [16, 4]), ((1, 4), [4] * 5), ((1,), [1] * 20)):
            bench = Rehearsal(plan={"buckets": buckets})
            await asyncio.gather(*(bench.submit(rows(1, n)) for n in range(20)))
            assert list(map(sum, bench.runner.batches)) == sizes

    rehearse(test)


def test_a_batch_is_filled_up_only_where_that_was_measured_to_win_and_nobody_sees_it():
    async def test():
        bench = Rehearsal(plan={"buckets": (1, 8, 16), "padded": (8,)})
        for n, padded in ((1, 8), (3, 8), (8, 0), (9, 0), (16, 0)):
            answer = await bench.submit(numbered(n))
            np.testing.assert_array_equal(array(answer.outputs[0]), numbered(n) + 1)
            assert (bench.runner.padded[-1], answer.batch_rows) == (padded, n)
        answers = await asyncio.gather(bench.submit(numbered(2)), bench.submit(numbered(3)))
        assert bench.runner.padded[-1] == 8
        for n, answer in zip((2, 3), answers, strict=True):
            np.testing.assert_array_equal(array(answer.outputs[0]), numbered(n) + 1)
        (counts,) = bench.statistics.by_variant.values()
        assert sum(size * batch[0] for size, batch in counts.batches.items()) == 1 + 3 + 8 + 9 + 16 + 5

    rehearse(test)


def test_a_batch_runs_only_on_what_is_proven_for_the_rows_it_has_in_the_end():
    """`wide` is proven for eight rows, not for one: when most of those who waited have gone, it is not asked."""

    async def test():
        bench = Rehearsal(variants=[variant("m", "wide", {1: 0.5, 8: 3.0}, target="here")])
        kept = bench.submit(rows(1, 1))
        left = [bench.submit(rows(1, n)) for n in range(7)]
        for future in left:
            future.cancel()
        assert (await kept).variant == "reference"
        answers = await asyncio.gather(*(bench.submit(rows(1, n)) for n in range(8)))
        assert {answer.variant for answer in answers} == {"wide"}

    rehearse(test)


def test_a_refused_batch_is_tried_item_by_item_and_then_on_the_reference():
    def fate(work):
        return "failed" if work.choice.variant == "fast" and any(item.rows == 3 for item in work.items) else "done"

    async def test():
        bench = Rehearsal(fate, variants=[variant("m", "fast", {1: 2.0}, target="here")])
        answers = await asyncio.gather(*(bench.submit(rows(n, n)) for n in (1, 2, 3, 4)))
        assert [answer.variant for answer in answers] == ["fast", "fast", "reference", "fast"]

    rehearse(test)


def test_a_pinned_request_is_never_answered_by_another_variant():
    async def test():
        bench = Rehearsal(
            lambda work: "failed" if work.choice.variant == "fast" else "done",
            variants=[variant("m", "fast", {1: 2.0}, target="here")],
        )
        with pytest.raises(ModelFailed):
            await bench.submit(rows(1, 1), pin="fast")

    rehearse(test)


def test_a_prefetched_batch_survives_the_death_of_the_one_before_it():
    deaths = iter(["died"])

    async def test():
        bench = Rehearsal(lambda work: next(deaths, "done"), max_rows=1)
        answers = await asyncio.gather(*(bench.submit(rows(1, n)) for n in range(3)))
        assert [float(array(answer.outputs[0])[0, 0]) for answer in answers] == [1.0, 2.0, 3.0]

    rehearse(test)


def test_a_client_that_leaves_withdraws_its_waiting_request():
    async def test():
        bench = Rehearsal(delay=lambda work: 0.2, max_rows=1)
        left = asyncio.Event()
        running, prefetched = bench.submit(rows(1, 0)), bench.submit(rows(1, 1))
        waiting = bench.submit(rows(1, 2), gone=left.wait)
        await asyncio.sleep(0)
        bench.batcher.sweep(now_ns(), watch_before_ns=now_ns())
        left.set()
        with pytest.raises(ClientGone):
            await waiting
        await asyncio.gather(running, prefetched)
        assert len(bench.runner.batches) == 2

    rehearse(test)


def test_inputs_that_fit_no_slot_are_refused_in_words():
    async def test():
        bench = Rehearsal()
        with pytest.raises(ModelFailed, match="do not fit a slot of 65536"):
            await bench.submit(rows(1, 1, width=SLOT))

    rehearse(test)

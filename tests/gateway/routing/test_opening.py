"""How variants are opened: as their plan says, again when it changes, and otherwise as the operator says."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np

from gateway.serve import Serving
from model_store.entities import REFERENCE, Plan
from tests import zoo
from tests.gateway.engines import ask, until
from tests.gateway.routing.test_follow import answers, following, run


def setting(serving: Serving, name: str = "big") -> tuple[int, int]:
    load = serving.table.resolve(name).sessions[REFERENCE].load
    return load.threads, load.instances


def slow_inputs(rows: int) -> dict[str, np.ndarray]:
    return {"x": np.full((rows, 1024), 0.5, np.float32)}


def test_a_plan_published_later_is_put_to_work_and_two_batches_then_run_at_once(tmp_path):
    async def test():
        async with following(tmp_path) as (publisher, serving, _):
            version = publisher.register("big", zoo.big(16))
            await until(lambda: answers(serving, "big"))
            assert setting(serving) == (1, 1)
            first = serving.table.resolve("big").sessions[REFERENCE]

            reference = publisher.store.catalog.variant("big", version.version, REFERENCE)
            planned = dataclasses.replace(reference, plan=Plan(threads=1, max_rows=64, instances=2, buckets=(1, 8)))
            publisher.store.catalog.publish(publisher.job, planned)
            await until(lambda: setting(serving) == (1, 2) and first.closed)

            results = await asyncio.gather(*(ask(serving, "big", slow_inputs(200)) for _ in range(6)))
            spans = [(result.answer.start_ns, result.answer.end_ns) for result in results]
            crowds = [sum(start <= at < end for start, end in spans) for at, _ in spans]
            assert max(crowds) == 2

    run(test())


def test_threads_that_the_operator_sets_are_one_instance_whatever_the_plan_says(tmp_path):
    async def test():
        async with following(tmp_path, threads=2) as (publisher, serving, _):
            version = publisher.register("big", zoo.big(2))
            await until(lambda: answers(serving, "big"))
            reference = publisher.store.catalog.variant("big", version.version, REFERENCE)
            planned = dataclasses.replace(reference, plan=Plan(threads=1, max_rows=64, instances=2))
            publisher.store.catalog.publish(publisher.job, planned)
            await until(lambda: serving.table.resolve("big").variants[REFERENCE].plan == planned.plan)
            assert setting(serving) == (2, 1)

    run(test())

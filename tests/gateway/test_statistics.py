"""Statistics as clients index them: exact keys, whole numbers, sums that add up, through failures and restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import numpy as np
import pytest

from gateway.errors import BadRequest, GatewayError
from gateway.routing.health import Subject
from gateway.serve import Call, Serving, infer, observe, observe_failure
from gateway.statistics import Statistics
from tests import zoo
from tests.gateway.engines import deploy, engine, tensor, until

STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


async def request(serving: Serving, rows: int = 1, timeout_s: float = 20.0, name: str = "x") -> None:
    """One request as a protocol makes it, written down as a protocol writes it down."""
    received = time.monotonic_ns()
    route = serving.table.resolve("m")
    x = tensor(np.ones((rows, 64), np.float32))
    call = Call(route, [(name, x)], "", timeout_s, None, received, time.monotonic_ns())
    try:
        result = await infer(serving, call)
        observe(serving, call, result, time.monotonic_ns())
    except GatewayError as error:
        observe_failure(serving, "m", None, error, received)


def stats(serving: Serving) -> dict:
    (one,) = serving.statistics.of("m", "1")
    return one


def whole(value) -> bool:
    if isinstance(value, dict):
        return all(map(whole, value.values()))
    if isinstance(value, list):
        return all(map(whole, value))
    return isinstance(value, str) or type(value) is int


def test_keys_are_tritons_and_numbers_are_whole_and_zero_before_the_first_request(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "m", zoo.mlp(hidden=8), tmp_path)
            one = stats(serving)
            assert one["inference_stats"] == {stage: {"count": 0, "ns": 0} for stage in STAGES}
            assert (one["last_inference"], one["inference_count"], one["execution_count"]) == (0, 0, 0)
            assert (one["batch_stats"], one["response_stats"]) == ([], {})
            before = time.time_ns() // 1_000_000
            await request(serving)
            one = stats(serving)
            assert list(one) == [
                "name", "version", "last_inference", "inference_count", "execution_count", "inference_stats",
                "response_stats", "batch_stats", "memory_usage",
            ]  # fmt: skip
            assert before <= one["last_inference"] <= time.time_ns() // 1_000_000
            assert list(one["batch_stats"][0]) == ["batch_size", "compute_input", "compute_infer", "compute_output"]
            assert list(one["memory_usage"][0]) == ["type", "id", "byte_size"]
            assert whole(one)

    asyncio.run(test())


def test_sums_add_up_over_batches_failures_and_restarts(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "m", zoo.mlp(hidden=8), tmp_path)
            await asyncio.gather(*(request(serving, rows=1 + n % 3) for n in range(60)))
            await asyncio.gather(*(request(serving, name="nobody") for _ in range(5)))
            first = stats(serving)
            pid = serving.runners.state()["ort-cpu"]["pid"]
            os.kill(pid, signal.SIGKILL)
            await until(lambda: serving.runners.state()["ort-cpu"]["restarts"] == 1)
            await asyncio.gather(*(request(serving) for _ in range(10)))
            one = stats(serving)
            stages = one["inference_stats"]
            counts = {stage: figures["count"] for stage, figures in stages.items()}
            assert counts["success"] == 70
            assert (
                counts["queue"] == counts["compute_input"] == counts["compute_infer"] == counts["compute_output"] == 70
            )
            assert counts["fail"] == 5
            assert stages["fail"]["ns"] > 0
            assert one["inference_count"] == 60 * 2 + 10
            parts = ("queue", "compute_input", "compute_infer", "compute_output")
            assert sum(stages[part]["ns"] for part in parts) <= stages["success"]["ns"]
            batches = one["batch_stats"]
            assert sum(batch["compute_infer"]["count"] for batch in batches) == one["execution_count"]
            assert sum(batch["batch_size"] * batch["compute_infer"]["count"] for batch in batches) == 130
            assert [batch["batch_size"] for batch in batches] == sorted({batch["batch_size"] for batch in batches})
            # Requests of one batch were all in the runtime for its whole time.
            assert sum(batch["compute_infer"]["ns"] for batch in batches) <= stages["compute_infer"]["ns"]
            for stage in STAGES:
                assert stages[stage]["ns"] >= first["inference_stats"][stage]["ns"]
                assert stages[stage]["count"] >= first["inference_stats"][stage]["count"]
            text = serving.metrics.render().decode()
            labels = '{model="m",version="1"}'
            assert f"nv_inference_request_success{labels} 70" in text
            assert f"nv_inference_count{labels} 130" in text
            assert f"nv_inference_exec_count{labels} {one['execution_count']}" in text
            for stage in parts:
                assert f"nv_inference_{stage}_duration_us{labels} {stages[stage]['ns'] // 1000}" in text

    asyncio.run(test())


def test_one_entry_per_ready_version_and_words_for_what_is_not_there(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "m", zoo.mlp(hidden=8), tmp_path)
            await deploy(serving, "n", zoo.mlp(hidden=8), tmp_path)
            await request(serving)
            assert [(one["name"], one["version"]) for one in serving.statistics.of()] == [("m", "1"), ("n", "1")]
            assert serving.statistics.of("m") == serving.statistics.of("m", "1") == serving.statistics.of()[:1]
            with pytest.raises(BadRequest, match=r"^requested model 'x' is not available$"):
                serving.statistics.of("x")
            with pytest.raises(BadRequest, match=r"^requested model version is not available for model 'm'$"):
                serving.statistics.of("m", "7")

    asyncio.run(test())


def test_the_number_of_batch_sizes_is_bounded():
    statistics = Statistics()
    counts = statistics.counts(Subject("m", "1", "reference"), "ort-cpu")
    for rows in range(1, 5000):
        counts.ran(rows, "only", 1, 1, 1)
    assert len(counts.batches) < 600
    assert counts.executions == 4999

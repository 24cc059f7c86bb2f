"""Runner processes, for real: answers, deaths, hangs, retries, quarantine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from compilers.targets import load_target
from gateway.errors import DeadlineExceeded, ModelFailed, NotReady, RunnerDied
from gateway.routing.health import Subject
from gateway.running.session import LoadRefused
from gateway.serve import Result
from tests import zoo
from tests.gateway.engines import ask, deploy, engine, outputs_of, signature_of, until


def run(test):
    return asyncio.run(asyncio.wait_for(test, 60))


def slow_inputs(rows: int = 600) -> dict[str, np.ndarray]:
    """A few tenths of a second of work for `zoo.big(16)`."""
    return {"x": np.full((rows, 1024), 0.5, np.float32)}


KINDS = (
    "mlp", "transformer", "residual_cnn", "multi_io", "strings", "scalar_output", "fixed_batch", "batch_mixing",
    "simple",
)  # fmt: skip


def test_every_kind_of_model_answers_as_its_session_does_in_this_process(tmp_path):
    async def test():
        async with engine() as serving:
            for name in KINDS:
                model = getattr(zoo, name)()
                await deploy(serving, name, model, tmp_path, max_rows=1 if name == "batch_mixing" else 64)
                inputs = zoo.random_inputs(model, rows=2)
                answered = outputs_of(await ask(serving, name, inputs))
                bare = load_target("ort-cpu").open({"model.onnx": tmp_path / f"{name}.reference.onnx"}, {}, 1)
                for output, expected in bare.run(inputs).items():
                    assert answered[output].dtype == expected.dtype
                    np.testing.assert_array_equal(answered[output], expected)

    run(test())


def test_requests_of_one_tick_share_batches_and_each_gets_its_own_rows(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "multi", zoo.multi_io(), tmp_path)
            inputs = [zoo.random_inputs(zoo.multi_io(), rows=1 + seed % 3, seed=seed) for seed in range(60)]
            results = await asyncio.gather(*(ask(serving, "multi", one) for one in inputs))
            for one, result in zip(inputs, results, strict=True):
                np.testing.assert_allclose(outputs_of(result)["sum"], one["a"] + one["b"], rtol=1e-6)
            assert max(result.answer.batch_rows for result in results) > 3
            assert max(result.answer.batch_rows for result in results) <= 64

    run(test())


def test_rows_of_text_are_parted_again(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "strings", zoo.strings(), tmp_path)
            texts = [np.array([f"t{n}" * n, "", "ü"][: 1 + n % 3], dtype=object) for n in range(20)]
            results = await asyncio.gather(*(ask(serving, "strings", {"text": one}) for one in texts))
            for one, result in zip(texts, results, strict=True):
                assert [t.decode() for t in outputs_of(result)["same"]] == one.tolist()
            assert max(result.answer.batch_rows for result in results) > 3

    run(test())


def test_models_whose_rows_see_one_another_are_never_batched(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "mixing", zoo.batch_mixing(), tmp_path, max_rows=1)
            inputs = [zoo.random_inputs(zoo.batch_mixing(), rows=2, seed=seed) for seed in range(20)]
            results = await asyncio.gather(*(ask(serving, "mixing", one) for one in inputs))
            for one, result in zip(inputs, results, strict=True):
                np.testing.assert_allclose(outputs_of(result)["y"], one["x"] - one["x"].mean(axis=0), atol=1e-6)
                assert result.answer.batch_rows == 2

    run(test())


def test_one_bad_request_does_not_harm_those_it_was_batched_with(tmp_path):
    async def test():
        async with engine() as serving:
            model = zoo.transformer()
            await deploy(serving, "bert", model, tmp_path)
            good = [zoo.random_inputs(model, rows=1, seed=seed) for seed in range(8)]
            bad = {**good[0], "input_ids": np.full((1, 8), 10**9, np.int64)}  # beyond the vocabulary
            answers = await asyncio.gather(
                *(ask(serving, "bert", one) for one in (*good[:4], bad, *good[4:])), return_exceptions=True
            )
            assert isinstance(answers[4], ModelFailed)
            assert "ort-cpu run" in str(answers[4])
            assert not any(isinstance(answer, BaseException) for answer in answers[:4] + answers[5:])

    run(test())


def test_a_runner_killed_mid_batch_costs_nobody_an_answer_when_another_variant_can_take_over(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "big", zoo.big(16), tmp_path, {"ort-cpu.fast": {1: 2.0}}, max_rows=1024)
            first = await ask(serving, "big", slow_inputs(1))
            assert first.answer.variant == "ort-cpu.fast"
            runner = serving.runners.get("ort-cpu")
            os.kill(runner.pid, signal.SIGSTOP)  # so that the batch is surely under way when its runner dies
            task = asyncio.create_task(ask(serving, "big", slow_inputs()))
            await until(lambda: runner.inflight == 1)
            os.kill(runner.pid, signal.SIGKILL)
            result = await task
            assert result.answer.variant == "reference"
            np.testing.assert_allclose(outputs_of(result)["y"][0], outputs_of(first)["y"][0], rtol=1e-4, atol=1e-4)
            assert serving.health.words(Subject("big", "1", "ort-cpu.fast")).startswith("killed a runner")
            assert b'cause="oom"' in serving.metrics.render()

    run(test())


def test_the_reference_alone_is_tried_again_in_a_new_process(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "big", zoo.big(16), tmp_path, max_rows=512)
            runner = serving.runners.get("ort-cpu")
            before = runner.pid
            tasks = [asyncio.create_task(ask(serving, "big", slow_inputs(500))) for _ in range(2)]
            await until(lambda: runner.inflight == 2)
            os.kill(before, signal.SIGSEGV)
            started = time.monotonic()
            await until(lambda: runner.pid not in (None, before) and runner.ready)
            assert time.monotonic() - started < 2.5
            results = await asyncio.gather(*tasks)
            assert [result.answer.variant for result in results] == ["reference", "reference"]
            assert b'cause="segv"' in serving.metrics.render()

    run(test())


def overlap(one: Result, other: Result) -> bool:
    return one.answer.start_ns < other.answer.end_ns and other.answer.start_ns < one.answer.end_ns


@pytest.mark.parametrize("instances", [1, 2])
def test_as_many_batches_run_at_once_as_the_session_has_instances(tmp_path, instances):
    async def test():
        async with engine() as serving:
            await deploy(serving, "big", zoo.big(16), tmp_path, instances=instances, max_rows=256)
            inputs = [slow_inputs(200 + n) for n in range(5)]
            alone = [outputs_of(await ask(serving, "big", one))["y"] for one in inputs]
            runner, most = serving.runners.get("ort-cpu"), 0
            tasks = [asyncio.create_task(ask(serving, "big", one)) for one in inputs]
            while not all(task.done() for task in tasks):
                most = max(most, runner.inflight)
                await asyncio.sleep(0.001)
            results = await asyncio.gather(*tasks)
            for result, expected in zip(results, alone, strict=True):
                np.testing.assert_allclose(outputs_of(result)["y"], expected, rtol=1e-5)
            crowds = [sum(overlap(one, other) for other in results) for one in results]
            assert max(crowds) >= instances if instances > 1 else max(crowds) == 1
            for one in results:  # at no moment more than there are instances
                assert sum(o.answer.start_ns <= one.answer.start_ns < o.answer.end_ns for o in results) <= instances
            assert most == instances + 1

    run(test())


def test_a_session_of_one_instance_never_shares_the_runner_with_one_of_two(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "pair", zoo.big(16), tmp_path, instances=2, max_rows=256)
            await deploy(serving, "lone", zoo.big(16), tmp_path, instances=1, max_rows=256)
            names = ["pair", "lone", "pair", "pair", "lone", "pair", "pair"]
            results = await asyncio.gather(*(ask(serving, name, slow_inputs(150)) for name in names))
            for name, result in zip(names, results, strict=True):
                crowd = sum(overlap(result, other) for other in results)
                assert crowd == 1 if name == "lone" else crowd >= 1
            assert any(overlap(one, other) for one in results for other in results if one is not other)

    run(test())


def test_of_two_batches_that_ran_when_the_runner_died_each_is_tried_again_and_the_third_only_waited(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "big", zoo.big(16), tmp_path, instances=2, max_rows=512)
            runner = serving.runners.get("ort-cpu")
            os.kill(before := runner.pid, signal.SIGSTOP)  # so that the batches are surely under way
            tasks = [asyncio.create_task(ask(serving, "big", slow_inputs(400))) for _ in range(4)]
            await until(lambda: runner.inflight == 3)
            os.kill(before, signal.SIGSEGV)
            os.kill(before, signal.SIGCONT)
            results = await asyncio.gather(*tasks)
            assert serving.health.words(Subject("big", "1", "reference")).startswith("killed a runner")  # once
            assert runner.restarts == 1
            for one in results[:2]:  # whoever is tried again has nobody beside it
                assert not any(overlap(one, other) for other in results if other is not one)

    run(test())


def test_two_models_that_fell_together_are_not_set_aside_until_one_falls_alone(tmp_path):
    async def test():
        async with engine() as serving:
            for name in ("a", "b"):
                await deploy(serving, name, zoo.big(16), tmp_path, instances=2, max_rows=256)
            runner = serving.runners.get("ort-cpu")

            async def fall(*names: str) -> list[asyncio.Task[Result]]:
                os.kill(before := runner.pid, signal.SIGSTOP)
                tasks = [asyncio.create_task(ask(serving, name, slow_inputs(200))) for name in names]
                await until(lambda: runner.inflight == len(names))
                os.kill(before, signal.SIGKILL)
                await until(lambda: runner.ready and runner.pid != before)
                return tasks

            first = await asyncio.gather(*await fall("a", "b"))
            assert not overlap(*first)
            for name in ("a", "b"):
                assert serving.health.words(Subject(name, "1", "reference")) == "healthy"
            again = await asyncio.gather(*await fall("a", "b"))
            assert not overlap(*again)  # suspected: one at a time, so that this death could tell
            told = sorted(serving.health.words(Subject(name, "1", "reference")).split(" ")[0] for name in ("a", "b"))
            assert told == ["healthy", "killed"], "whoever's turn it was fell alone"

    run(test())


def test_a_variant_that_kills_two_runners_is_set_aside_and_says_so(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "big", zoo.big(16), tmp_path, max_rows=1024)
            runner = serving.runners.get("ort-cpu")
            task = asyncio.create_task(ask(serving, "big", slow_inputs()))
            for _ in range(2):
                await until(lambda: runner.inflight == 1)
                os.kill(runner.pid, signal.SIGKILL)
                await until(lambda: runner.inflight == 0)
            with pytest.raises(RunnerDied, match="big 1 reference was killed"):
                await task
            with pytest.raises(NotReady, match="reference is quarantined for 60 s more: it killed 2 runners"):
                await ask(serving, "big", slow_inputs(1))
            assert serving.table.explain("big")["variant"] is None
            assert "quarantined" in serving.table.explain("big")["why"]

    run(test())


def test_a_hung_runner_is_killed_just_after_the_deadline_and_replaced(tmp_path):
    async def test():
        async with engine() as serving:
            model = zoo.mlp()
            await deploy(serving, "mlp", model, tmp_path)
            runner = serving.runners.get("ort-cpu")
            before = runner.pid
            os.kill(before, signal.SIGSTOP)
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await ask(serving, "mlp", zoo.random_inputs(model, 1), timeout_s=0.4)
            assert 0.39 < time.monotonic() - started < 1.5
            await until(lambda: runner.pid not in (None, before))
            await ask(serving, "mlp", zoo.random_inputs(model, 1))
            assert b'cause="hang"' in serving.metrics.render()

    run(test())


def test_requests_one_by_one_are_answered_on_the_spot_and_a_runner_that_stops_meanwhile_costs_no_deadline(tmp_path):
    async def test():
        async with engine() as serving:
            model = zoo.mlp()
            await deploy(serving, "mlp", model, tmp_path)
            runner = serving.runners.get("ort-cpu")
            x = zoo.random_inputs(model, 1)
            first = outputs_of(await ask(serving, "mlp", x))
            turns = 0

            async def count_turns():
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            counting = asyncio.create_task(count_turns())
            on_the_spot = 0
            for _ in range(200):
                before = turns
                result = await ask(serving, "mlp", x)
                on_the_spot += turns == before
                for name, value in outputs_of(result).items():
                    np.testing.assert_array_equal(value, first[name])
            counting.cancel()
            assert on_the_spot > 0
            os.kill(runner.pid, signal.SIGSTOP)
            with pytest.raises(DeadlineExceeded):
                await ask(serving, "mlp", x, timeout_s=0.3)
            await until(lambda: runner.restarts == 1 and runner.ready)
            results = await asyncio.gather(*(ask(serving, "mlp", x) for _ in range(20)))
            assert max(result.answer.batch_rows for result in results) > 1

    run(test())


def test_a_client_in_a_hurry_does_not_kill_a_runner_that_is_merely_working(tmp_path):
    async def test():
        async with engine() as serving:
            await deploy(serving, "big", zoo.big(16), tmp_path, max_rows=1024)
            runner = serving.runners.get("ort-cpu")
            before = runner.pid
            neighbour = asyncio.create_task(ask(serving, "big", slow_inputs()))
            await until(lambda: runner.inflight == 1)
            with pytest.raises(DeadlineExceeded):
                await ask(serving, "big", slow_inputs(), timeout_s=0.02)
            await neighbour
            with pytest.raises(DeadlineExceeded):
                await ask(serving, "big", slow_inputs(), timeout_s=0.05)
            await ask(serving, "big", slow_inputs(1))
            assert runner.pid == before

    run(test())


def test_a_model_the_runtime_refuses_is_refused_in_words(tmp_path):
    async def test():
        async with engine() as serving:
            path = tmp_path / "broken.onnx"
            path.write_bytes(b"this is not a model")
            signature = signature_of(zoo.mlp())
            subject = Subject("broken", "1", "reference")
            session = serving.runners.load("ort-cpu", subject, {"model.onnx": path}, {}, signature, 1)
            with pytest.raises(LoadRefused, match="ort-cpu open"):
                await session.opened

    run(test())


def test_a_runner_that_cannot_start_is_reported_and_requests_are_refused_with_the_reason(tmp_path):
    async def test():
        async with engine() as serving:
            route = await deploy(serving, "mlp", zoo.mlp(), tmp_path)
            runner = serving.runners.get("ort-cpu")
            runner.target = "no-such-target"
            os.kill(runner.pid, signal.SIGKILL)
            await until(lambda: runner.trouble, 20)
            with pytest.raises(NotReady, match="before it was ready"):
                await ask(serving, "mlp", zoo.random_inputs(zoo.mlp(), 1))
            assert serving.ready() == (False, runner.trouble)
            assert route.sessions["reference"].ready is False

    run(test())


def test_outputs_larger_than_a_slot_are_refused_in_words(tmp_path):
    async def test():
        async with engine(slot_bytes=1 << 20) as serving:
            await deploy(serving, "big", zoo.big(4), tmp_path, max_rows=1024)
            with pytest.raises(ModelFailed, match="slot_bytes"):
                await ask(serving, "big", slow_inputs(200))
            assert outputs_of(await ask(serving, "big", slow_inputs(100)))["y"].shape == (100, 1024)

    run(test())


def test_a_runner_dies_with_its_gateway(tmp_path):
    """PDEATHSIG: even a gateway that was killed leaves no runner behind."""
    import subprocess
    import sys

    script = """
import asyncio, os, signal
from gateway.serve import Result
from tests.gateway.engines import engine, until
async def main():
    async with engine() as serving:
        runner = serving.runners.get("ort-cpu")
        await until(lambda: runner.ready)
        print(runner.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    gateway = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    runner = int(gateway.stdout)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{runner}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.01)
    pytest.fail("the runner outlived its gateway")

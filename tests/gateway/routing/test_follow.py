"""The follower on a real store with real runners: models appear, variants are swapped in, nothing fails meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from gateway.errors import GatewayError, NotFound, NotReady
from gateway.routing.follow import Follower
from gateway.serve import Serving
from model_store.entities import REFERENCE, JobKind, JobState, ModelVersion, Verdict
from model_store.store import ModelStore
from tests import zoo
from tests.gateway.engines import ask, outputs_of, settings, signature_of, until, variant


def run(test):
    return asyncio.run(asyncio.wait_for(test, 90))


class Publisher:
    """Plays the compile worker on a real store: what it publishes is real, only not compiled."""

    def __init__(self, folder: Path) -> None:
        self.store = ModelStore.open(folder / "data")
        self.folder = folder

    def blob(self, model: onnx.ModelProto) -> str:
        file = self.folder / "upload.onnx"
        file.write_bytes(model.SerializeToString())
        return self.store.blobs.put(file)[0]

    def register(self, name: str, model: onnx.ModelProto, digest: str | None = None) -> ModelVersion:
        digest = digest or self.blob(model)
        version, _ = self.store.catalog.register(
            name, model=digest, size_bytes=1, signature=signature_of(model), samples=None, policy={},
            targets=["ort-cpu"], parameters=1, operators={},
        )  # fmt: skip
        job = self.store.catalog.claim("test", [JobKind.REFERENCE], 60)
        assert job is not None
        self.store.catalog.publish(job, self._of(version, REFERENCE, {}, digest))
        self.store.catalog.finish(job, JobState.SUCCEEDED)
        self.job = self.store.catalog.claim("test", [JobKind.COMPILE], 600)
        return version

    def publish(self, version: ModelVersion, name: str, speedups, model: onnx.ModelProto, verdict=Verdict.SERVING):
        assert self.job is not None
        self.store.catalog.publish(self.job, self._of(version, name, speedups, self.blob(model), verdict))

    def _of(self, version, name, speedups, digest, verdict=Verdict.SERVING):
        made = variant(version.name, name, speedups, verdict, digest=digest)
        return dataclasses.replace(made, version=version.version)


@contextlib.asynccontextmanager
async def following(tmp_path: Path, **changes):
    publisher = Publisher(tmp_path)
    configured = settings(data=tmp_path / "data", follow_interval_s=0.02, **changes)
    async with Serving(configured) as serving:
        follower = Follower(publisher.store, serving, configured)
        task = asyncio.create_task(follower.run())
        try:
            yield publisher, serving, follower
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            publisher.store.close()


def answers(serving: Serving, name: str, version: str | None = None) -> bool:
    with contextlib.suppress(GatewayError):
        return serving.table.resolve(name, version) is not None
    return False


X = {"x": np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)}


def test_a_new_model_answers_and_a_deleted_one_does_not(tmp_path):
    async def test():
        async with following(tmp_path) as (publisher, serving, _):
            await until(lambda: serving.ready()[0])
            with pytest.raises(NotFound):
                await ask(serving, "mlp", X)
            publisher.register("mlp", zoo.mlp())
            await until(lambda: answers(serving, "mlp"))
            assert (await ask(serving, "mlp", X)).answer.variant == REFERENCE
            publisher.store.catalog.delete_model("mlp")
            await until(lambda: not answers(serving, "mlp"))
            await until(lambda: serving.runners.state()["ort-cpu"]["sessions"] == 0)
            assert serving.batchers == {}

    run(test())


def test_models_that_are_there_at_the_start_can_answer_once_it_is_ready(tmp_path):
    Publisher(tmp_path).register("mlp", zoo.mlp())

    async def test():
        async with following(tmp_path) as (_, serving, _):
            assert serving.ready() == (False, "the models are being opened")
            await until(lambda: serving.ready()[0])
            await ask(serving, "mlp", X)

    run(test())


def test_while_variants_and_versions_are_swapped_under_load_no_request_fails_and_no_answer_is_wrong(tmp_path):
    """Variants come, are replaced by new builds, lose their place; a version comes and becomes the default."""
    models = {"1": zoo.mlp(seed=1), "2": zoo.mlp(seed=2)}

    async def test():
        async with following(tmp_path) as (publisher, serving, _):
            first = publisher.register("mlp", models["1"])
            await until(lambda: answers(serving, "mlp"))
            stop, counts, expected = False, {}, {}

            async def client(number: int) -> None:
                inputs = {"x": np.full((1 + number % 3, 64), number / 8, np.float32)}
                while not stop:
                    result = await ask(serving, "mlp", inputs, timeout_s=10)
                    y = outputs_of(result)["y"]
                    known = expected.setdefault((number, result.route.version), y)
                    np.testing.assert_allclose(y, known, rtol=1e-4, atol=1e-5)
                    key = (result.route.version, result.answer.variant)
                    counts[key] = counts.get(key, 0) + 1
                    await asyncio.sleep(0)

            clients = [asyncio.create_task(client(number)) for number in range(8)]
            current = first
            for step in range(12):
                if step == 6:
                    current = publisher.register("mlp", models["2"])
                    await until(lambda: serving.table.resolve("mlp").version == "2")
                built = onnx.ModelProto()
                built.CopyFrom(models[current.version])
                built.doc_string = f"build {step}"  # another artifact, the same function
                name = f"ort-cpu.{'ab'[step % 2]}"
                publisher.publish(current, name, {1: 2.0 + step, 8: 1.5 + step}, built)
                seen = counts.get((current.version, name), 0)
                await until(lambda s=seen, c=current, n=name: counts.get((c.version, n), 0) > s + 5)
            stop = True
            await asyncio.gather(*clients)
            assert len(counts) >= 5
            for number in range(8):
                assert not np.allclose(expected[number, "1"], expected[number, "2"]) or number == 0
            await until(lambda: serving.runners.state()["ort-cpu"]["sessions"] <= 4)

    run(test())


def test_the_champion_alias_decides_which_version_answers(tmp_path):
    async def test():
        async with following(tmp_path) as (publisher, serving, follower):
            publisher.register("mlp", zoo.mlp(seed=1))
            publisher.register("mlp", zoo.mlp(seed=2))
            await until(lambda: answers(serving, "mlp", "1") and answers(serving, "mlp", "2"))
            assert serving.table.resolve("mlp").version == "2"
            publisher.store.catalog.set_alias("mlp", "champion", "1")
            await follower.poke()
            await until(lambda: serving.table.resolve("mlp").version == "1")
            assert serving.table.resolve("mlp", "champion").version == "1"

    run(test())


def test_a_variant_that_cannot_be_opened_is_skipped_with_its_reason(tmp_path):
    async def test():
        async with following(tmp_path) as (publisher, serving, _):
            version = publisher.register("mlp", zoo.mlp())
            await until(lambda: answers(serving, "mlp"))
            broken = onnx.ModelProto()
            broken.CopyFrom(zoo.mlp())
            broken.graph.node[0].op_type = "NoSuchOperator"
            publisher.publish(version, "ort-cpu.broken", {1: 9.0}, broken)
            await until(lambda: "ort-cpu.broken" in serving.table.resolve("mlp").refused)
            assert (await ask(serving, "mlp", X)).answer.variant == REFERENCE
            rows = {row["variant"]: row for row in serving.table.explain("mlp")["alternatives"]}
            assert "NoSuchOperator" in rows["ort-cpu.broken"]["health"]

    run(test())


def test_a_version_whose_reference_cannot_be_opened_is_not_ready_and_says_why(tmp_path):
    async def test():
        async with following(tmp_path) as (publisher, serving, _):
            file = tmp_path / "nonsense"
            file.write_bytes(b"not a model")
            publisher.register("bad", zoo.mlp(), digest=publisher.store.blobs.put(file)[0])
            await until(lambda: "bad" in serving.table.models and serving.table.models["bad"].absent)
            await until(lambda: "ort-cpu open" in serving.table.models["bad"].absent["1"])
            with pytest.raises(NotReady, match="version 1 is not at ready state: ort-cpu open"):
                await ask(serving, "bad", X)
            assert serving.ready()[0], "one bad model does not make the server unready"

    run(test())


def test_a_pinned_variant_that_nobody_needs_is_opened_on_demand(tmp_path):
    async def test():
        async with following(tmp_path) as (publisher, serving, _):
            version = publisher.register("mlp", zoo.mlp())
            await until(lambda: answers(serving, "mlp"))
            publisher.publish(version, "ort-cpu.slow", {1: 0.5}, zoo.mlp(), Verdict.ELIGIBLE)
            await until(lambda: "ort-cpu.slow" in serving.table.resolve("mlp").variants)
            assert "ort-cpu.slow" not in serving.table.resolve("mlp").sessions
            result = await ask(serving, "mlp", X, pin="ort-cpu.slow")
            assert (result.answer.variant, result.answer.why) == ("ort-cpu.slow", "pinned")
            assert (await ask(serving, "mlp", X)).answer.variant == REFERENCE

    run(test())


def test_no_table_ever_holds_a_closed_session(tmp_path):
    """Variants win and lose their place, pins come and are forgotten, a runner dies until it gives a session up."""

    async def test():
        async with following(tmp_path) as (publisher, serving, follower):
            tables, closed = [], []
            swap = serving.swap

            def watched(table, batchers):
                swap(table, batchers)
                tables.append(table)
                asyncio.get_running_loop().call_soon(look)  # what retires is closed in the same tick as the swap

            def look():
                routes = [route for model in serving.table.models.values() for route in model.versions.values()]
                closed.extend(s.subject for route in routes for s in route.sessions.values() if s.closed)

            def check():
                look()
                assert not closed

            serving.swap = watched
            version = publisher.register("mlp", zoo.mlp())
            await until(lambda: answers(serving, "mlp"))
            for step in range(6):
                name = f"ort-cpu.{'ab'[step % 2]}"
                publisher.publish(version, name, {1: 2.0 + step}, zoo.mlp())
                await until(lambda n=name: serving.table.resolve("mlp").ranked[1][0] == n)
                await until(lambda n=name: n in serving.table.resolve("mlp").sessions)
                check()
            loser = serving.table.resolve("mlp").ranked[1][1]
            result = await ask(serving, "mlp", X, pin=loser)
            assert result.answer.variant == loser
            follower._pinned.clear()
            follower.set_hold("mlp", loaded=True)
            check()
            assert loser not in serving.table.resolve("mlp").sessions
            assert (await ask(serving, "mlp", X, pin=loser)).answer.variant == loser, (
                "a pin opens again what was closed"
            )
            given_up = serving.table.resolve("mlp").sessions[loser]
            given_up.give_up("it died twice while opening it")
            check()
            assert loser not in serving.table.resolve("mlp").sessions
            assert loser in serving.table.resolve("mlp").refused
            with pytest.raises(NotReady, match="cannot be opened here"):
                await ask(serving, "mlp", X, pin=loser)
            await asyncio.sleep(0)
            assert not closed
            assert len(tables) > 8

    run(test())


def test_when_the_catalog_cannot_be_read_the_last_routes_go_on(tmp_path):
    async def test():
        async with following(tmp_path) as (publisher, serving, _):
            publisher.register("mlp", zoo.mlp())
            await until(lambda: answers(serving, "mlp"))
            publisher.store.catalog.unchanged_sequence = publisher.store.catalog.sequence = lambda: 1 / 0
            await until(lambda: serving.trouble)
            assert "cannot be read" in serving.trouble
            await ask(serving, "mlp", X)
            assert b"forgeway_db_errors_total 0.0" not in serving.metrics.render()
            del publisher.store.catalog.unchanged_sequence, publisher.store.catalog.sequence
            await until(lambda: not serving.trouble)

    run(test())


def test_a_hundred_megabyte_reference_is_routed_soon_after_it_is_published(tmp_path):
    """Not a timed test: the bound is many times what it takes, and catches only a load that waits for something."""

    async def test():
        async with following(tmp_path) as (publisher, serving, _):
            model = zoo.big(100)
            started = time.monotonic()
            publisher.register("big", model)
            await until(lambda: answers(serving, "big"), 30)
            await ask(serving, "big", {"x": np.ones((1, 1024), np.float32)})
            assert time.monotonic() - started < 20

    run(test())

"""One model in two real runners: every answer is right wherever load sends it, and the route says what is expected."""

from __future__ import annotations

import asyncio

import numpy as np
import onnx
import pytest

from compilers.targets import load_target
from gateway.routing.health import Subject
from gateway.routing.ranking import VersionRoute, rank
from gateway.routing.router import ModelRoutes, RouteTable
from model_store.entities import REFERENCE
from tests import zoo
from tests.gateway.engines import ask, engine, outputs_of, signature_of, variant

FAST = "openvino-cpu.f32"


async def deploy_pair(serving, model, folder) -> VersionRoute:
    """The reference in ONNX Runtime's runner, the same model in OpenVINO's, said to be a little faster."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    built = load_target("openvino-cpu").build(path, folder, {"precision": "f32"})
    every = {REFERENCE: variant("pair"), FAST: variant("pair", FAST, {1: 1.1, 8: 1.1}, target="openvino-cpu")}
    files = {REFERENCE: ({"model.onnx": path}, {"precision": "f32"}), FAST: (built.files, built.options)}
    signature = signature_of(model)
    sessions = {
        name: serving.runners.load(one.target, Subject("pair", "1", name), *files[name], signature, 1)
        for name, one in every.items()
    }
    await asyncio.gather(*(session.opened for session in sessions.values()))
    buckets, ranked = rank(every.values(), False)
    route = VersionRoute("pair", "1", signature, every, buckets, ranked).opened(sessions)
    batchers = {("pair", "1"): serving.runners.batcher(route)}
    serving.swap(RouteTable({"pair": ModelRoutes({"1": route}, {}, "1")}, 1, serving.health), batchers)
    serving.starting = False
    return route


def test_answers_are_right_wherever_load_sends_them_and_the_route_explains_it(tmp_path):
    async def test():
        async with engine() as serving:
            route = await deploy_pair(serving, zoo.big(4), tmp_path)
            assert list(route.costs[1]) == [FAST, REFERENCE]
            bare = load_target("ort-cpu").open({"model.onnx": tmp_path / "model.onnx"}, {}, 1)
            inputs = [np.full((1 + n % 9, 1024), n / 40, np.float32) for n in range(40)]
            expected = [bare.run({"x": x})["y"] for x in inputs]
            stop = False

            async def client(n):
                while not stop:
                    found = outputs_of(await ask(serving, "pair", {"x": inputs[n]}))["y"]
                    np.testing.assert_allclose(found, expected[n], rtol=1e-3, atol=1e-3)

            clients = [asyncio.create_task(client(n)) for n in range(40)]
            await asyncio.sleep(2)
            facts = serving.table.explain("pair", rows=8, forecast_of=serving.forecast_of)
            stop = True
            await asyncio.gather(*clients)
            large = {"x": np.concatenate(inputs)}
            found = outputs_of(await ask(serving, "pair", large))["y"]
            np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-3, atol=1e-3)
            ran = {key.variant: counts for key, counts in serving.statistics.by_variant.items()}
            whys = {why for counts in ran.values() for why in counts.why}
            assert whys <= {"fastest", "live", "tried", "overflow"}
            assert ran[FAST].executions > 0
            assert {row["variant"] for row in facts["predicted"]} == {FAST, REFERENCE}
            leader, other = facts["predicted"]
            assert (leader["variant"], leader["overflow"]) == (facts["variant"], "leads")
            for row in (leader, other):
                assert row["run_s"] > 0
                assert row["finish_s"] == pytest.approx(row["ahead_s"] + row["run_s"])
                assert row["measured_s"] == pytest.approx(0.001 / (1.1 if row["variant"] == FAST else 1.0), rel=0.01)
            assert "one device" in other["overflow"] or other["overflow"].startswith("while the leader is busy")

    asyncio.run(asyncio.wait_for(test(), 60))

"""Runners that cannot be had, or talk nonsense, and models that no message can tell of: nobody waits in vain."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import onnx
import pytest

from gateway.routing.health import Subject
from gateway.running import wire
from gateway.running.runner_process import run_child
from gateway.running.session import LoadRefused
from gateway.serve import Serving
from model_store.entities import Signature, TensorSpec
from tests import zoo
from tests.gateway.engines import ask, deploy, engine, settings, signature_of


def run(test):
    return asyncio.run(asyncio.wait_for(test, 60))


async def refused(serving: Serving, name: str, path: Path, signature: Signature) -> str:
    """Why a runner does not open a model."""
    subject = Subject(name, "1", "reference")
    session = serving.runners.load("ort-cpu", subject, {"model.onnx": path}, {}, signature, 1)
    with pytest.raises(LoadRefused) as caught:
        await asyncio.wait_for(session.opened, 10)
    return str(caught.value)


def test_a_model_that_no_message_can_tell_of_and_an_error_without_end_are_refused_and_cost_no_runner(tmp_path):
    async def test():
        async with engine() as serving:
            model = zoo.mlp()
            await deploy(serving, "mlp", model, tmp_path)
            path = tmp_path / "odd.onnx"
            node = onnx.helper.make_node("Odd" * 50_000, ["x"], ["y"])  # the runtime quotes it
            graph = onnx.helper.make_graph([node], "odd", list(model.graph.input), list(model.graph.output))
            opsets, version = model.opset_import, model.ir_version
            onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=version), path)
            words = await refused(serving, "odd", path, signature_of(model))
            assert "OddOdd" in words
            assert len(words) < 5000
            wide = Signature(tuple(TensorSpec(f"feature_{n}", "FP32", (-1, 1)) for n in range(2000)), ())
            deep = Signature(tuple(TensorSpec(f"{n}", "FP32", (1,) * 32) for n in range(400)), ())
            for signature in (wide, deep):
                assert "too many inputs" in await refused(serving, "wide", tmp_path / "mlp.reference.onnx", signature)
            await ask(serving, "mlp", zoo.random_inputs(model, 1))
            assert serving.runners.get("ort-cpu").restarts == 0

    run(test())


def test_an_answer_that_is_no_tensor_ends_the_runner_and_the_request_is_tried_again(tmp_path):
    lies = ["once"]

    def lying(target, memory, on_message, on_death):
        def twisted(data: bytes) -> None:
            message = wire.unpack(data)
            if isinstance(message, wire.Done) and lies:
                lies.pop()
                place = message.places[0]
                data = wire.pack_done(*message[:-1], [place._replace(nbytes=place.nbytes + 4)])
            on_message(data)

        return run_child(target, memory, twisted, on_death)

    async def test():
        async with Serving(settings(), connect=lying) as serving:
            model = zoo.mlp()
            await deploy(serving, "mlp", model, tmp_path)
            await asyncio.wait_for(ask(serving, "mlp", zoo.random_inputs(model, 1)), 10)
            assert serving.runners.get("ort-cpu").restarts == 1
            assert serving.admission.inflight == 0

    run(test())


def test_a_runner_for_which_there_is_no_process_now_is_started_a_little_later(tmp_path):
    troubles = [OSError(errno.EAGAIN, "Resource temporarily unavailable"), OSError(errno.EMFILE, "Too many open files")]

    def scarce(*given):
        if troubles:
            raise troubles.pop()
        return run_child(*given)

    async def test():
        async with Serving(settings(), connect=scarce) as serving:
            await deploy(serving, "mlp", zoo.mlp(), tmp_path)
            await ask(serving, "mlp", zoo.random_inputs(zoo.mlp(), 1))
            assert serving.runners.get("ort-cpu").restarts == 2

    run(test())

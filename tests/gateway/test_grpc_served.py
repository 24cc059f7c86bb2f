"""gRPC of a whole gateway process: beside HTTP, its port, load and unload, and the drain."""

from __future__ import annotations

import json
import socket
import time

import grpc
import httpx
import numpy as np
import pytest

from gateway.grpc.messages import SERVICE, message, methods
from tests import zoo
from tests.gateway.grpc_calls import fails, request
from tests.gateways import RunningGateway

Code = grpc.StatusCode
INPUTS = {"INPUT0": np.arange(16, dtype=np.int32).reshape(1, 16), "INPUT1": np.ones((1, 16), np.int32)}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with RunningGateway(tmp_path_factory.mktemp("grpc") / "data") as running:
        yield running


def ask(gateway: RunningGateway, method: str, given: object = None, **fields: object) -> object:
    [kind] = [each for each in methods(SERVICE) if each.name == method]
    with grpc.insecure_channel(gateway.grpc) as channel:
        call = channel.unary_unary(f"/{SERVICE}/{method}", kind.request.SerializeToString, kind.response.FromString)
        return call(kind.request(**fields) if given is None else given, timeout=60)


def test_a_model_is_loaded_from_bytes_answers_on_both_protocols_and_is_unloaded(gateway):
    load = message("RepositoryModelLoadRequest")(model_name="simple")
    load.parameters["file:1/model.onnx"].bytes_param = zoo.simple().SerializeToString()
    ask(gateway, "RepositoryModelLoad", load)
    answer = ask(gateway, "ModelInfer", request("simple", INPUTS))
    by_http = httpx.post(
        f"{gateway.url}/v2/models/simple/infer",
        json={
            "inputs": [
                {"name": name, "shape": [1, 16], "datatype": "INT32", "data": array.ravel().tolist()}
                for name, array in INPUTS.items()
            ]
        },
    ).json()
    for nth, output in enumerate(by_http["outputs"]):
        assert np.array(output["data"], np.int32).tobytes() == answer.raw_output_contents[nth]
    change = message("RepositoryModelLoadRequest")(model_name="simple")
    change.parameters["config"].string_param = json.dumps({"max_batch_size": "16"})
    ask(gateway, "RepositoryModelLoad", change)
    assert ask(gateway, "ModelConfig", name="simple").config.max_batch_size == 16
    ask(gateway, "RepositoryModelUnload", model_name="simple")
    assert not ask(gateway, "ModelReady", name="simple").ready
    with fails(Code.NOT_FOUND, "'simple' has no available versions"):
        ask(gateway, "ModelInfer", request("simple", INPUTS))
    ask(gateway, "RepositoryModelLoad", model_name="simple")
    assert ask(gateway, "ModelReady", name="simple").ready


def test_a_broken_model_is_refused_when_loaded(gateway):
    load = message("RepositoryModelLoadRequest")(model_name="broken")
    load.parameters["file:1/model.onnx"].bytes_param = b"no model"
    with fails(Code.INVALID_ARGUMENT, "failed to load 'broken'"):
        ask(gateway, "RepositoryModelLoad", load)


def test_a_taken_port_is_said_in_words(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = RunningGateway(tmp_path / "data", "--grpc-port", str(port), ready=False)
        assert running.process.wait(30) == 1
        assert running.process.stdout is not None
        running.process.stdout.close()
    assert f"127.0.0.1:{port}" in running.words()
    assert "--grpc-port" in running.words()


def test_a_gateway_without_grpc_says_nothing_of_it(tmp_path):
    with RunningGateway(tmp_path / "data", "--no-grpc", "--no-compile") as running:
        assert (running.url != "", running.grpc) == (True, "")


def test_a_drained_gateway_ends_open_streams_and_exits_well(tmp_path):
    with (
        RunningGateway(tmp_path / "data", "--no-compile") as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        kind = methods(SERVICE)[6]
        waiting = channel.stream_stream(
            f"/{SERVICE}/{kind.name}", kind.request.SerializeToString, kind.response.FromString
        )

        def one_and_silence():
            yield request("no", INPUTS)
            time.sleep(5)

        answers = waiting(one_and_silence())
        assert "is not found" in next(answers).error_message
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 15
        with fails(Code.UNAVAILABLE):
            next(answers)

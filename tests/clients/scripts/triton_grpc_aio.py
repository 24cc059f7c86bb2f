"""tritonclient.grpc.aio: every method, streams and many requests at once."""

import asyncio
from functools import partial

import numpy as np
import pytest
import simple
import tritonclient.grpc.aio as grpc
from simple import check
from tritonclient.utils import InferenceServerException

given = partial(simple.given, grpc)


@pytest.fixture
def run(grpc_address):
    return simple.runner(grpc, grpc_address)


def test_health_and_facts(run):
    async def walk(client):
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("simple")
        assert (await client.get_server_metadata()).name == "triton"
        assert (await client.get_model_metadata("simple", as_json=True))["versions"] == ["1"]
        assert (await client.get_model_config("simple", "1")).config.name == "simple"
        assert (await client.get_inference_statistics("simple")).model_stats[0].name == "simple"
        assert len((await client.get_inference_statistics()).model_stats) > 1
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nobody' is not found"):
            await client.get_model_metadata("nobody")

    run(walk)


def test_repository(run, numbers, model_bytes):
    async def walk(client):
        assert "come_and_go" in {row.name for row in (await client.get_model_repository_index()).models}
        await client.unload_model("come_and_go")
        assert not await client.is_model_ready("come_and_go")
        await client.load_model("come_and_go")
        assert await client.is_model_ready("come_and_go")
        await client.load_model("from_bytes_grpc_aio", config="{}", files={"file:1/model.onnx": model_bytes})
        check(await client.infer("from_bytes_grpc_aio", given(numbers)), numbers)
        await client.unload_model("from_bytes_grpc_aio")

    run(walk)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer(run, numbers, compression):
    async def walk(client):
        result = await client.infer(
            "simple",
            given(numbers),
            request_id="mine",
            outputs=[grpc.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")],
            compression_algorithm=compression,
            priority=2,
            timeout=20_000_000,
            client_timeout=20,
            parameters={"who": "aio"},
        )
        check(result, numbers)
        assert result.get_response().id == "mine"

    run(walk)


def test_many_at_once_get_their_own_answers(run, numbers):
    async def walk(client):
        async def one(i):
            mine = (numbers[0] + i, numbers[1] * i)
            check(await client.infer("simple", given(mine)), mine)

        await asyncio.gather(*(one(i) for i in range(300)))

    run(walk)


def test_stream(run, numbers):
    async def walk(client):
        async def requests():
            for i in range(10):
                yield {"model_name": "simple", "inputs": given((numbers[0] + i, numbers[1])), "request_id": str(i)}
            yield {"model_name": "nobody", "inputs": given(numbers), "request_id": "wrong"}

        seen, errors = {}, []
        async for result, error in client.stream_infer(requests()):
            if error is None:
                seen[result.get_response().id] = result
            else:
                errors.append(error)
        for i in range(10):
            check(seen[str(i)], (numbers[0] + i, numbers[1]))
        assert len(errors) == 1 and "'nobody' is not found" in errors[0].message()

    run(walk)


def test_cancellation(run, numbers):
    async def walk(client):
        x = grpc.InferInput("x", [1, 4], "FP32").set_data_from_numpy(np.ones((1, 4), np.float32))
        turns = grpc.InferInput("turns", [1, 1], "INT64").set_data_from_numpy(np.array([[500_000]]))
        asked = asyncio.create_task(client.infer("slow", [x, turns]))
        await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises((asyncio.CancelledError, InferenceServerException)):
            await asked
        with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
            await client.infer("slow", [x, turns], client_timeout=0.05)
        check(await client.infer("simple", given(numbers)), numbers)

    run(walk)


def test_settings(run):
    async def walk(client):
        assert "trace_rate" in (await client.get_trace_settings()).settings
        changed = await client.update_trace_settings("simple", {"trace_rate": "5"})
        assert list(changed.settings["trace_rate"].value) == ["5"]
        await client.update_trace_settings("simple", {"trace_rate": None})
        assert "log_info" in (await client.get_log_settings()).settings
        assert (await client.update_log_settings({"log_error": True})).settings["log_error"].bool_param

    run(walk)


def test_shared_memory(run, numbers, regions):
    async def walk(client):
        size = numbers[0].nbytes
        with regions.made("grpc_aio_in", 2 * size) as region:
            regions.write(region, numbers)
            await client.register_system_shared_memory("grpc_aio_in", regions.key("grpc_aio_in"), 2 * size)
            status = await client.get_system_shared_memory_status("grpc_aio_in")
            assert status.regions["grpc_aio_in"].byte_size == 2 * size
            inputs = [grpc.InferInput(name, [2, 16], "INT32") for name in ("INPUT0", "INPUT1")]
            for place, one in enumerate(inputs):
                one.set_shared_memory("grpc_aio_in", size, offset=place * size)
            check(await client.infer("simple", inputs), numbers)
            await client.unregister_system_shared_memory("grpc_aio_in")
        assert not (await client.get_cuda_shared_memory_status()).regions
        await client.unregister_cuda_shared_memory()
        with pytest.raises(InferenceServerException):
            await client.register_cuda_shared_memory("nothing", b"AAAA", 0, 64)

    run(walk)

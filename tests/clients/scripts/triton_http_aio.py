"""tritonclient.http.aio: every method, many requests at once."""

import asyncio
from functools import partial

import pytest
import simple
import tritonclient.http.aio as http
from simple import check
from tritonclient.utils import InferenceServerException

given = partial(simple.given, http)


@pytest.fixture
def run(http_address):
    return simple.runner(http, http_address)


def test_health_and_facts(run):
    async def walk(client):
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("simple") and not await client.is_model_ready("nobody")
        assert (await client.get_server_metadata())["name"] == "triton"
        assert (await client.get_model_metadata("simple"))["versions"] == ["1"]
        assert (await client.get_model_config("simple", "1"))["name"] == "simple"
        assert (await client.get_inference_statistics("simple"))["model_stats"][0]["name"] == "simple"
        assert len((await client.get_inference_statistics())["model_stats"]) > 1
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nobody' is not found"):
            await client.get_model_metadata("nobody")

    run(walk)


def test_repository(run, numbers, model_bytes):
    async def walk(client):
        assert "come_and_go" in {row["name"] for row in await client.get_model_repository_index()}
        await client.unload_model("come_and_go")
        assert not await client.is_model_ready("come_and_go")
        await client.load_model("come_and_go")
        assert await client.is_model_ready("come_and_go")
        await client.load_model("from_bytes_http_aio", config="{}", files={"file:1/model.onnx": model_bytes})
        check(await client.infer("from_bytes_http_aio", given(numbers)), numbers)
        await client.unload_model("from_bytes_http_aio")

    run(walk)


@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_infer_compressed_both_ways(run, numbers, algorithm):
    async def walk(client):
        for binary in (True, False):
            answer = await client.infer(
                "simple",
                given(numbers, binary),
                request_id="mine",
                outputs=[http.InferRequestedOutput(name, binary_data=binary) for name in ("OUTPUT0", "OUTPUT1")],
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
                priority=2,
                timeout=20_000_000,
                parameters={"who": "aio"},
            )
            check(answer, numbers)
            assert answer.get_response()["id"] == "mine"

    run(walk)


def test_many_at_once_get_their_own_answers(run, numbers):
    async def walk(client):
        async def one(i):
            mine = (numbers[0] + i, numbers[1] * i)
            check(await client.infer("simple", given(mine)), mine)

        await asyncio.gather(*(one(i) for i in range(200)))

    run(walk)


def test_settings(run):
    async def walk(client):
        assert "trace_rate" in await client.get_trace_settings()
        assert (await client.update_trace_settings("simple", {"trace_rate": "5"}))["trace_rate"] == "5"
        await client.update_trace_settings("simple", {"trace_rate": None})
        assert "log_info" in await client.get_log_settings()
        assert (await client.update_log_settings({"log_error": True}))["log_error"] is True

    run(walk)


def test_shared_memory(run, numbers, regions):
    async def walk(client):
        size = numbers[0].nbytes
        with regions.made("aio_in", 2 * size) as region:
            regions.write(region, numbers)
            await client.register_system_shared_memory("aio_in", regions.key("aio_in"), 2 * size)
            assert (await client.get_system_shared_memory_status("aio_in"))[0]["byte_size"] == 2 * size
            inputs = [http.InferInput(name, [2, 16], "INT32") for name in ("INPUT0", "INPUT1")]
            for place, one in enumerate(inputs):
                one.set_shared_memory("aio_in", size, offset=place * size)
            check(await client.infer("simple", inputs), numbers)
            await client.unregister_system_shared_memory("aio_in")
        assert await client.get_cuda_shared_memory_status() == []
        await client.unregister_cuda_shared_memory()
        with pytest.raises(InferenceServerException):
            await client.register_cuda_shared_memory("nothing", b"AAAA", 0, 64)

    run(walk)

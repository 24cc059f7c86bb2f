"""Every RPC that is no inference, the health service, keys, and the messages themselves, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
from google.protobuf import descriptor_pb2

from gateway.grpc import messages
from gateway.grpc.errors import CODES, refused
from gateway.grpc.messages import SERVICE, message, methods
from tests import zoo
from tests.gateway.engines import until
from tests.gateway.grpc_calls import fails, grpc_serving, raw, request, run

Code = grpc.StatusCode
ROOT = Path(__file__).resolve().parents[2]
A, B = np.arange(16, dtype=np.int32).reshape(1, 16), np.ones((1, 16), np.int32)


def test_health_and_metadata_say_what_rest_says(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}, server_name="triton") as client:
            assert (await client.ServerLive()).live
            assert (await client.ServerReady()).ready
            assert (await client.ModelReady(name="simple", version="1")).ready
            server = await client.ServerMetadata()
            assert server.name == "triton"
            assert "statistics" in server.extensions
            model = await client.ModelMetadata(name="simple")
            assert (model.name, list(model.versions), model.platform) == ("simple", ["1"], "onnxruntime_onnx")
            assert [(i.name, i.datatype, list(i.shape)) for i in model.inputs] == [
                ("INPUT0", "INT32", [-1, 16]), ("INPUT1", "INT32", [-1, 16]),
            ]  # fmt: skip
            for method in ("ModelReady", "ModelMetadata", "ModelConfig"):
                with fails(Code.NOT_FOUND, "Request for unknown model: 'no' is not found"):
                    await getattr(client, method)(name="no")
                with fails(Code.NOT_FOUND, "version 7 is not found"):
                    await getattr(client, method)(name="simple", version="7")
            client.gateway.draining.set()
            assert not (await client.ServerReady()).ready

    run(test())


def test_config_and_statistics_are_messages_with_the_facts_of_rest(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}) as client:
            config = (await client.ModelConfig(name="simple")).config
            assert (config.name, config.backend) == ("simple", "onnxruntime")
            assert config.max_batch_size > 0
            assert [list(given.dims) for given in config.input] == [[16], [16]]
            for _ in range(3):
                await client.infer("simple", {"INPUT0": A, "INPUT1": B})
            [facts] = (await client.ModelStatistics(name="simple")).model_stats
            assert (facts.inference_count, facts.inference_stats.success.count) == (3, 3)
            assert facts.inference_stats.queue.count == 3
            assert [each.name for each in (await client.ModelStatistics()).model_stats] == ["simple"]
            with fails(Code.INVALID_ARGUMENT, "requested model 'no' is not available"):
                await client.ModelStatistics(name="no")

    run(test())


def test_the_repository_is_listed_and_refuses_what_it_does_not_know(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}) as client:
            [row] = (await client.RepositoryIndex()).models
            assert (row.name, row.version, row.state) == ("simple", "1", "READY")
            with fails(Code.INTERNAL, "failed to load 'no', failed to poll from model repository"):
                await client.RepositoryModelLoad(model_name="no")
            await client.RepositoryModelUnload(model_name="no")
            for method in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"):
                with fails(Code.UNIMPLEMENTED, "'repository_name' specification is not supported"):
                    await getattr(client, method)(repository_name="other")

    run(test())


def test_tensors_pass_through_shared_memory(tmp_path):
    name = f"forgeway-test-{os.getpid()}"
    file = Path("/dev/shm") / name
    file.write_bytes(raw(A) + raw(B) + bytes(128))

    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}, shared_memory=True) as client:
            await client.SystemSharedMemoryRegister(name="both", key=f"/{name}", offset=0, byte_size=256)
            with fails(Code.ALREADY_EXISTS, "shared memory region 'both' already in manager"):
                await client.SystemSharedMemoryRegister(name="both", key=f"/{name}", offset=0, byte_size=256)
            status = (await client.SystemSharedMemoryStatus()).regions
            assert (status["both"].key, status["both"].byte_size) == (f"/{name}", 256)
            asked = request("simple", {"INPUT0": A, "INPUT1": B}, ["OUTPUT0", "OUTPUT1"])
            asked.raw_input_contents.pop(0)  # only the second input is in the message
            _place(asked.inputs[0], "both", 64, 0)
            _place(asked.outputs[1], "both", 64, 128)
            answer = await client.ModelInfer(asked)
            assert list(answer.raw_output_contents) == [raw(A + B), b""]
            assert file.read_bytes()[128:192] == raw(A - B)
            _place(asked.outputs[1], "both", 63, 128)
            with fails(Code.INVALID_ARGUMENT, "should be at least 64 bytes to hold the results"):
                await client.ModelInfer(asked)
            _place(asked.inputs[0], "both", 64, 250)
            with fails(Code.INVALID_ARGUMENT, "Invalid offset + byte size for shared memory region: 'both'"):
                await client.ModelInfer(asked)
            await client.SystemSharedMemoryUnregister(name="both")
            with fails(Code.NOT_FOUND, "Unable to find shared memory region: 'both'"):
                await client.ModelInfer(asked)
            with fails(Code.NOT_FOUND):
                await client.SystemSharedMemoryStatus(name="both")
            assert not (await client.CudaSharedMemoryStatus()).regions
            await client.CudaSharedMemoryUnregister()
            with fails(Code.INVALID_ARGUMENT, "GPUs not supported"):
                await client.CudaSharedMemoryRegister(name="r", raw_handle=b"x", device_id=0, byte_size=1)

    try:
        run(test())
    finally:
        file.unlink()


def _place(tensor: object, region: str, nbytes: int, offset: int) -> None:
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = nbytes
    tensor.parameters["shared_memory_offset"].int64_param = offset


def test_without_the_setting_no_region_can_be_registered(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {}) as client:
            with fails(Code.UNIMPLEMENTED, "shared_memory"):
                await client.SystemSharedMemoryRegister(name="r", key="/x", byte_size=1)
            assert not (await client.SystemSharedMemoryStatus()).regions
            await client.SystemSharedMemoryUnregister()

    run(test())


def test_trace_and_log_settings_can_be_read_and_changed(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}) as client:
            assert list((await client.TraceSetting()).settings["trace_level"].value) == ["OFF"]
            change = message("TraceSettingRequest")(model_name="simple")
            change.settings["trace_rate"].value.append("5")
            assert list((await client.TraceSetting(change)).settings["trace_rate"].value) == ["5"]
            assert list((await client.TraceSetting()).settings["trace_rate"].value) == ["1000"]
            change.settings["trace_rate"].Clear()
            assert list((await client.TraceSetting(change)).settings["trace_rate"].value) == ["1000"]
            with fails(Code.NOT_FOUND):
                await client.TraceSetting(model_name="no")
            log = message("LogSettingsRequest")()
            log.settings["log_verbose_level"].uint32_param = 1
            assert (await client.LogSettings(log)).settings["log_verbose_level"].uint32_param == 1
            assert (await client.LogSettings()).settings["log_info"].bool_param
            log.settings["log_nonsense"].bool_param = True
            with fails(Code.INVALID_ARGUMENT, "Unknown log setting 'log_nonsense'"):
                await client.LogSettings(log)
            log = message("LogSettingsRequest")()
            log.settings["log_verbose_level"].uint32_param = 0
            await client.LogSettings(log)

    run(test())


def test_the_standard_health_service_follows_readiness(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {}) as client:
            client.serving.starting = False
            await until(lambda: client.serving.ready()[0])
            response = message("grpc.health.v1.HealthCheckResponse")
            for service in ("", SERVICE):
                assert (await client.Check(service=service)).status == response.SERVING
            with fails(Code.NOT_FOUND):
                await client.Check(service="no.such")
            watch = client.Watch(service="")
            assert (await watch.read()).status == response.SERVING
            client.gateway.draining.set()
            assert (await watch.read()).status == response.NOT_SERVING
            watch.cancel()
            unknown = client.Watch(service="no.such")
            assert (await unknown.read()).status == response.SERVICE_UNKNOWN
            unknown.cancel()

    run(test())


def test_keys_open_what_they_open_over_http(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {"simple": zoo.simple()}, require_keys=True) as client:
            assert (await client.ServerLive()).live  # open, as over HTTP
            inputs = {"INPUT0": A, "INPUT1": B}
            with fails(Code.UNAUTHENTICATED, "an API key is needed"):
                await client.infer("simple", inputs)

            async def requests():
                yield request("simple", inputs)

            with fails(Code.UNAUTHENTICATED):
                _ = [answer async for answer in client.ModelStreamInfer(requests())]
            catalog = client.gateway.store.catalog
            _, secret = await asyncio.to_thread(catalog.create_key, ["predict:simple"])
            for metadata in (("authorization", f"Bearer {secret}"), ("x-api-key", secret)):
                client.metadata = (metadata,)
                assert (await client.infer("simple", inputs)).model_name == "simple"
            with fails(Code.PERMISSION_DENIED, "lacks the scope"):
                await client.RepositoryModelUnload(model_name="simple")
            with fails(Code.PERMISSION_DENIED):
                await client.infer("other", inputs)

    run(test())


def test_names_without_end_are_refused_in_a_text_that_arrives(tmp_path):
    async def test():
        async with grpc_serving(tmp_path, {}, require_keys=True) as client:
            with fails(Code.UNAUTHENTICATED):
                await client.infer("n" * 1_000_000, {"INPUT0": A})
            _, secret = await asyncio.to_thread(client.gateway.store.catalog.create_key, ["admin"])
            client.metadata = (("x-api-key", secret),)
            for long in ("n" * 1_000_000, "é" * 100_000):
                with fails(Code.NOT_FOUND, "Request for unknown model: '", "..."):
                    await client.infer(long, {"INPUT0": A})
                with fails(Code.NOT_FOUND, "..."):
                    await client.ModelConfig(name=long)

    run(test())


def test_every_kind_of_error_has_a_status():
    from gateway import errors
    from gateway.grpc.status import Code

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GatewayError)]
    assert {kind.__name__ for kind in kinds if kind not in CODES} <= {"Draining", "LoadFailed", "ModelFailed"}
    assert refused(errors.Draining()).code is Code.UNAVAILABLE
    assert refused(errors.QueueTimeout("Request timeout expired")).code is Code.UNAVAILABLE
    assert refused(errors.TooLarge("x")).code is Code.RESOURCE_EXHAUSTED
    assert (refused(errors.ModelFailed("x")).code, refused(KeyError("secret")).text) == (
        Code.INTERNAL,
        "internal error",
    )


def test_there_are_twenty_methods():
    assert len(methods(SERVICE)) == 20


def test_the_committed_descriptors_are_those_of_the_proto(tmp_path):
    folder = ROOT / "gateway" / "grpc"
    out = tmp_path / "fresh.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--descriptor_set_out={out}"]
    subprocess.run([*command, "inference.proto", "health.proto"], check=True)
    fresh, committed = (
        descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes()) for file in (out, messages.DESCRIPTORS)
    )
    assert fresh == committed, "run `make stubs`"


def test_messages_of_the_same_package_live_beside_ours_in_one_process():
    """What a client's stubs do: the same files into the default pool, which takes each name once."""
    script = """
import json
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from gateway.grpc import messages
pool = descriptor_pool.Default()
files = descriptor_pb2.FileDescriptorSet.FromString(messages.DESCRIPTORS.read_bytes())
for file in files.file:
    file.name = "grpc_service.proto" if file.package == "inference" else file.name
    pool.Add(file)
theirs = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferRequest"))
ours = messages.message("ModelInferRequest")
assert theirs is not ours
print(json.dumps(ours.FromString(theirs(model_name="m").SerializeToString()).model_name))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert json.loads(done.stdout) == "m"

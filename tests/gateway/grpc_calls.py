"""A real gRPC server on a free port over a hand-built engine, and a client of our own messages for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import onnx

from gateway.auth import Keyring
from gateway.codec.values import join_texts
from gateway.grpc.messages import HEALTH, SERVICE, message, methods
from gateway.grpc.server import GrpcServer
from gateway.routing.follow import Follower
from gateway.server_controls import ServerControls
from gateway.state import Gateway
from model_store.datatypes import numpy_dtype, v2_name
from model_store.store import ModelStore
from tests.gateway.engines import deploy, engine

NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Client:
    """`await client.ModelConfig(name="m")`: every RPC by its name, fields by theirs."""

    def __init__(self, gateway: Gateway, address: str, channel: grpc.aio.Channel) -> None:
        self.gateway = gateway
        self.serving = gateway.serving
        self.address = address
        self.channel = channel
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.timeout: float | None = 30

    def __getattr__(self, name: str) -> Any:
        [(service, method)] = [
            (service, method) for service in (SERVICE, HEALTH) for method in methods(service) if method.name == name
        ]
        kind = ("unary", "stream")[method.streams_in] + "_" + ("unary", "stream")[method.streams_out]
        call = getattr(self.channel, kind)(
            f"/{service}/{name}", method.request.SerializeToString, method.response.FromString
        )

        def ask(given: Any = None, **fields: Any) -> Any:
            request = method.request(**fields) if given is None else given
            return call(request, metadata=self.metadata, timeout=self.timeout)

        return ask

    async def infer(self, model: str, inputs: Mapping[str, np.ndarray], outputs: Any = (), **fields: Any) -> Any:
        return await self.ModelInfer(request(model, inputs, outputs, **fields))


def request(model: str, inputs: Mapping[str, np.ndarray], outputs: Any = (), **fields: Any) -> Any:
    """A ModelInferRequest with raw tensors."""
    made = message("ModelInferRequest")(model_name=model, **fields)
    for name, array in inputs.items():
        made.inputs.add(name=name, datatype=v2_name(array.dtype), shape=array.shape)
        made.raw_input_contents.append(raw(array))
    for name in outputs:
        made.outputs.add(name=name)
    return made


def raw(array: np.ndarray) -> bytes:
    if array.dtype.kind == "O":
        return join_texts(list(array.ravel()))
    return np.ascontiguousarray(array).tobytes()


def arrays(response: Any) -> dict[str, np.ndarray]:
    """The outputs of a ModelInferResponse that are no texts."""
    return {
        output.name: np.frombuffer(data, numpy_dtype(output.datatype)).reshape(tuple(output.shape))
        for output, data in zip(response.outputs, response.raw_output_contents, strict=True)
    }


@contextlib.asynccontextmanager
async def grpc_serving(folder: Path, models: Mapping[str, onnx.ModelProto], **changes: Any) -> AsyncIterator[Client]:
    folder.mkdir(parents=True, exist_ok=True)
    store = ModelStore.open(folder / "data")
    async with engine(**changes) as serving:
        for name, model in models.items():
            await deploy(serving, name, model, folder)
        settings = serving.settings
        follower = Follower(store, serving, settings)
        keyring = Keyring(store.catalog, require=settings.require_keys, named=False)
        gateway = Gateway(settings, store, serving, follower, keyring, None, ServerControls("info"))
        server = GrpcServer("127.0.0.1", 0)
        await server.start(gateway)
        try:
            async with grpc.aio.insecure_channel(server.address, options=NO_LIMIT) as channel:
                yield Client(gateway, server.address, channel)
        finally:
            await server.close(5)
            store.close()


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test, 90))


@contextlib.contextmanager
def fails(code: grpc.StatusCode, *texts: str) -> Any:
    """The call within ends with this status, and its details hold these texts."""
    try:
        yield
    except grpc.RpcError as error:
        assert error.code() is code, (error.code(), error.details())
        assert all(text in error.details() for text in texts), error.details()
    else:
        raise AssertionError(f"it was answered; {code} was expected")

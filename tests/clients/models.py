"""The models that clients of the protocol are tried against, and a gateway that serves them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import TensorProto

from gateway.client import Client
from gateway.demo.process import GatewayProcess, free_port
from tests import zoo
from tests.gateways import register_uncompiled

ELEMENTS = {
    "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "INT64": TensorProto.INT64, "UINT64": TensorProto.UINT64,
}  # fmt: skip

MODELS: Mapping[str, onnx.ModelProto] = {
    "simple": zoo.simple(),
    "simple_int8": zoo.simple_int8(),
    "simple_string": zoo.simple_string(),
    "simple_identity": zoo.identity(TensorProto.STRING),
    "classes": zoo.mlp(hidden=8, inputs=4, outputs=5),
    "slow": zoo.slow(),
    "come_and_go": zoo.simple(),
    **{f"identity_{name.lower()}": zoo.identity(element) for name, element in ELEMENTS.items()},
}


class Served(GatewayProcess):
    """A gateway with gRPC on a port of its own."""

    def __init__(self, data: Path, *flags: str) -> None:
        self.grpc_port = free_port()
        super().__init__(data, flags=("--server-name", "triton", "--grpc-port", str(self.grpc_port), *flags))

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"


@contextmanager
def serving(folder: Path, *flags: str, names: tuple[str, ...] = tuple(MODELS)) -> Iterator[Served]:
    """A gateway whose models answer."""
    with Served(folder / "data", *flags) as gateway, Client(gateway.url) as client:
        for name in names:
            register_uncompiled(client, name, MODELS[name])
        for name in names:
            client.wait(name, "1")
        yield gateway

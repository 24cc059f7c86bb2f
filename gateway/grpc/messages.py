"""Our message classes, from the committed descriptor set (`make stubs`), in a pool of their own.

Every V2 client brings stubs of the same package `inference`, and the default pool takes each file once per process: a
private pool lets theirs and ours live side by side (kserve#3099, MLServer#1730).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["HEALTH", "SERVICE", "DecodeError", "Method", "message", "methods"]

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
DESCRIPTORS = Path(__file__).with_name("inference.binpb")


class Method(NamedTuple):
    """One RPC of a service, with the classes of its messages."""

    name: str
    request: Any
    response: Any
    streams_in: bool
    streams_out: bool


def _load() -> Any:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


_pool = _load()


def message(name: str) -> Any:
    """The class of `inference.<name>` (nested ones by their dotted path), or of a full name."""
    found = _pool.FindMessageTypeByName(name if name.startswith("grpc.") else f"inference.{name}")
    return message_factory.GetMessageClass(found)


def methods(service: str) -> tuple[Method, ...]:
    """Every RPC of a service, as the .proto declares them."""
    return tuple(
        Method(
            method.name,
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
            method.client_streaming,
            method.server_streaming,
        )
        for method in _pool.FindServiceByName(service).methods
    )

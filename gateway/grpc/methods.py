"""Every method that is answered: its path, and the handler behind it on serialized messages.

ModelInfer and ModelStreamInfer take and give serialized messages themselves, so that no parser copies tensors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from gateway.grpc.caller import Caller
from gateway.grpc.errors import Refused
from gateway.grpc.head import Rpc
from gateway.grpc.health import Health
from gateway.grpc.infer import Inference
from gateway.grpc.messages import HEALTH, SERVICE, DecodeError, Method, methods
from gateway.grpc.service import unary
from gateway.grpc.status import Code
from gateway.grpc.stream import Streams
from gateway.state import Gateway


def rpcs_of(gateway: Gateway, inference: Inference, streams: Streams, health: Health) -> Mapping[bytes, Rpc]:
    """By path, as `:path` has it."""
    check, watch = methods(HEALTH)
    rpcs = {
        f"/{HEALTH}/{check.name}": Rpc(unary=_answering(check, health.check)),
        f"/{HEALTH}/{watch.name}": Rpc(stream=_yielding(watch, health.watch)),
        f"/{SERVICE}/ModelInfer": Rpc(unary=inference.unary),
        f"/{SERVICE}/ModelStreamInfer": Rpc(stream=streams.stream),
    }
    for method in methods(SERVICE):
        path = f"/{SERVICE}/{method.name}"
        if path not in rpcs:
            rpcs[path] = Rpc(unary=_answering(method, unary(gateway, method)))
    return {path.encode(): rpc for path, rpc in rpcs.items()}


def _answering(
    method: Method, answer: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[bytes, Caller], Awaitable[bytes]]:
    async def handle(data: bytes, caller: Caller) -> bytes:
        response = await answer(_parsed(method, data), caller)
        serialized: bytes = response.SerializeToString()
        return serialized

    return handle


def _yielding(
    method: Method, answers: Callable[[Any, Any], AsyncIterator[Any]]
) -> Callable[[AsyncIterator[bytes], Caller], AsyncIterator[bytes]]:
    """Of a method that takes one message and answers with many."""

    async def handle(given: AsyncIterator[bytes], caller: Caller) -> AsyncIterator[bytes]:
        async for data in given:
            async for response in answers(_parsed(method, data), caller):
                yield response.SerializeToString()
            return
        raise Refused(Code.INTERNAL, "a call of this method brings one message")

    return handle


def _parsed(method: Method, data: bytes) -> Any:
    try:
        return method.request.FromString(data)
    except DecodeError as exc:
        raise Refused(Code.INTERNAL, f"failed to parse the request of {method.name}: {exc}") from None

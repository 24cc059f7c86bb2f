"""The gRPC server: every RPC of inference.proto and grpc.health.v1 on the event loop and the engine of HTTP.

ModelInfer and ModelStreamInfer take and give serialized messages, so that tensors are not copied by a parser.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio

from gateway.grpc.caller import PIN
from gateway.grpc.errors import Refused
from gateway.grpc.health import Health
from gateway.grpc.infer import Inference
from gateway.grpc.messages import HEALTH, SERVICE, Method, methods
from gateway.grpc.service import unary
from gateway.grpc.stream import Streams
from gateway.state import Gateway

INT32_MAX = 2**31 - 1
_METADATA_BYTES = 64 * 1024
_INFER = f"/{SERVICE}/ModelInfer"

OPTIONS = (
    ("grpc.max_receive_message_length", INT32_MAX),
    ("grpc.max_send_message_length", INT32_MAX),
    ("grpc.max_metadata_size", _METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),  # clients that keep their connections warm are no attackers
)


class GrpcServer:
    """Has its port once built, answers once started. `shared`: with other processes that say so, too."""

    def __init__(self, host: str, port: int, shared: bool = False) -> None:
        """Raises OSError when the port cannot be taken. One that is taken must be an error unless it is shared."""
        self._server = grpc.aio.server(options=(*OPTIONS, ("grpc.so_reuseport", int(shared))))
        self._streams: Streams | None = None
        self._health: Health | None = None
        name = f"[{host}]" if ":" in host else host
        try:
            self.port = self._server.add_insecure_port(f"{name}:{port}")
        except RuntimeError as exc:
            raise OSError(f"{name}:{port} cannot be listened on: it is taken, or not of this machine") from exc
        self.address = f"{name}:{self.port}"

    async def start(self, gateway: Gateway) -> None:
        """Answer, from now on."""
        inference = Inference(gateway)
        self._streams, self._health = Streams(inference), Health(gateway)
        special = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(inference.unary),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(_yielding(self._streams.stream)),
        }
        others = {
            method.name: grpc.unary_unary_rpc_method_handler(_answering(unary(gateway, method)), *_serializers(method))
            for method in methods(SERVICE)
            if method.name not in special
        }
        check, watch = methods(HEALTH)
        health = {
            check.name: grpc.unary_unary_rpc_method_handler(_answering(self._health.check), *_serializers(check)),
            watch.name: grpc.unary_stream_rpc_method_handler(_yielding(self._health.watch), *_serializers(watch)),
        }
        self._server.add_generic_rpc_handlers(
            (
                _Unpinned(grpc.unary_unary_rpc_method_handler(inference.unpinned)),
                grpc.method_handlers_generic_handler(SERVICE, special | others),
                grpc.method_handlers_generic_handler(HEALTH, health),
            )
        )
        await self._server.start()

    async def close(self, patience_s: float) -> None:
        """Refuse new calls at once; those under way get `patience_s` seconds."""
        if self._streams is not None and self._health is not None:
            self._streams.close()
            self._health.close()
        await self._server.stop(patience_s)


class _Unpinned(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc is untyped
    """Takes the ModelInfer calls whose metadata names no variant."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != _INFER:
            return None
        for key, _ in handler_call_details.invocation_metadata:
            if key == PIN:
                return None
        return self._handler


def _serializers(method: Method) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    return method.request.FromString, method.response.SerializeToString


def _answering(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def handle(request: Any, context: Any) -> Any:
        try:
            return await answer(request, context)
        except Refused as refused:
            await context.abort(refused.code, refused.text)

    return handle


def _yielding(answers: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for answer in answers(request, context):
                yield answer
        except Refused as refused:
            await context.abort(refused.code, refused.text)

    return handle

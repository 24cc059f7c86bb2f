"""ModelInfer: bytes in, bytes out, the walk of serve.py in between. Streams answer each of their requests with it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from gateway.errors import ClientGone, DeadlineExceeded, GatewayError
from gateway.grpc import caller as calling
from gateway.grpc import codec
from gateway.grpc.caller import Caller
from gateway.grpc.codec import Request
from gateway.grpc.errors import Code, Refused, refused
from gateway.serve import Call, infer, observe, observe_failure
from gateway.state import Gateway

OFF_LOOP_BYTES = 1 << 20
"""Typed contents larger than this are converted in a thread."""

_NEARLY_S = 0.01

log = logging.getLogger("forgeway.request")


class Inference:
    """Answers serialized ModelInferRequests."""

    def __init__(self, gateway: Gateway) -> None:
        self._serving = gateway.serving
        self._keyring = gateway.keyring
        self._regions = gateway.serving.regions

    async def unary(self, data: bytes, context: Any) -> bytes:
        """The RPC ModelInfer, as grpc.aio calls it. Cancelling withdraws what is not dispatched."""
        received_ns = time.monotonic_ns()
        try:
            return await self.run(await self.decode(data, received_ns), context, received_ns)
        except Exception as exc:
            refused = refusal(exc, context)
            await context.abort(refused.code, refused.text)
            raise  # never reached: abort raises

    async def decode(self, data: bytes, received_ns: int) -> Request:
        """Raises BadRequest."""
        try:
            if len(data) > OFF_LOOP_BYTES:
                return await asyncio.to_thread(codec.decode, data)
            return codec.decode(data)
        except GatewayError as exc:
            observe_failure(self._serving, "", None, exc, received_ns)
            raise

    async def run(self, request: Request, caller: Caller, received_ns: int, in_stream: bool = False) -> bytes:
        """Answer a decoded request. Raises GatewayError."""
        serving, plan = self._serving, request.plan
        try:
            if not self._keyring.is_open:
                await calling.admit(self._keyring, caller, "POST", f"/v2/models/{plan.model}/infer")
            route = serving.table.resolve(plan.model, plan.version)
            codec.check_outputs(request, route, self._regions)
            inputs = codec.tensors(request, self._regions)
            options = plan.options
            call = Call(
                route,
                inputs,
                request.id,
                calling.timeout_s(caller, options.timeout_s),
                options.variant or calling.pin(caller),
                received_ns,
                time.monotonic_ns(),
                priority=options.priority,
            )
            result = await infer(serving, call)
            answer = codec.encode(request, result, self._regions, in_stream)
            observe(serving, call, result, time.monotonic_ns())
            return answer
        except asyncio.CancelledError:
            gone = ClientGone("the client cancelled the call")
            observe_failure(serving, plan.model, plan.version, gone, received_ns)
            raise
        except Exception as exc:
            observe_failure(serving, plan.model, plan.version, exc, received_ns)
            raise


def refusal(exc: Exception, caller: Caller) -> Refused:
    """The status for an error. A deadline of the call itself is DEADLINE_EXCEEDED, that of a request UNAVAILABLE."""
    if not isinstance(exc, GatewayError | Refused):
        log.error("unforeseen error", exc_info=exc)
    if isinstance(exc, DeadlineExceeded) and (left := calling.remaining_s(caller)) is not None and left < _NEARLY_S:
        return Refused(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")  # whoever is first, the client reads these words
    return refused(exc)

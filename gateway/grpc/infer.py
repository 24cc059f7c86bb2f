"""ModelInfer: bytes in, bytes out, the walk of serve.py in between. Streams answer each of their requests with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from gateway.errors import ClientGone, DeadlineExceeded, GatewayError
from gateway.grpc import caller as calling
from gateway.grpc import codec
from gateway.grpc.caller import Caller
from gateway.grpc.codec import Plan, Request
from gateway.grpc.errors import Refused, refused
from gateway.grpc.known import Known, Memory
from gateway.grpc.status import Code
from gateway.routing.ranking import VersionRoute
from gateway.serve import Call, infer, observe, observe_failure
from gateway.state import Gateway
from gateway.tensors import Checked

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
        self._memory = Memory()

    async def unary(self, data: bytes, caller: Caller) -> bytes:
        """The RPC ModelInfer. Cancelling withdraws what is not dispatched. Raises Refused."""
        received_ns = time.monotonic_ns()
        try:
            known = self._memory.find(data)
            if known is not None and (answer := self._again(known, data, caller, received_ns)) is not None:
                return await answer
            request = await self.decode(data, received_ns)
            answered = await self.run(request, caller, received_ns)
            if not request.id:
                self._learn(data, request)
            return answered
        except Exception as exc:
            raise refusal(exc, caller) from None

    async def decode(self, data: bytes, received_ns: int) -> Request:
        """Raises BadRequest."""
        try:
            if len(data) > OFF_LOOP_BYTES:
                return await asyncio.to_thread(codec.decode, data)
            return codec.decode(data)
        except GatewayError as exc:
            observe_failure(self._serving, "", None, exc, received_ns)
            raise

    def _again(self, known: Known, data: bytes, caller: Caller, received_ns: int) -> Awaitable[bytes] | None:
        """Answer a request that is known but for its tensors; None when it has to be looked at again after all."""
        if not self._keyring.is_open:
            return None
        plan, serving = known.plan, self._serving
        try:
            route = serving.table.resolve(plan.model, plan.version)
        except GatewayError:
            return None
        batcher = serving.batchers.get((route.name, route.version))
        if batcher is None or (checked := known.checked(data, batcher.check)) is None:
            return None
        variant = known.plan.options.variant or calling.pin(caller)
        return self._walk(known, route, checked, caller, received_ns, variant)

    async def _walk(
        self,
        known: Known,
        route: VersionRoute,
        checked: Checked,
        caller: Caller,
        received_ns: int,
        variant: str | None,
    ) -> bytes:
        serving, plan, options = self._serving, known.plan, known.plan.options
        with self._told(plan, received_ns):
            timeout_s = calling.timeout_s(caller, options.timeout_s)
            call = Call(
                route, (), "", timeout_s, variant, received_ns, time.monotonic_ns(), None, options.priority, checked
            )  # fmt: skip
            result = await infer(serving, call)
            answer = known.answer(result)
            observe(serving, call, result, time.monotonic_ns())
            return answer

    def _learn(self, data: bytes, request: Request) -> None:
        try:
            route = self._serving.table.resolve(request.plan.model, request.plan.version)
        except GatewayError:  # it was deleted meanwhile
            return
        batcher = self._serving.batchers.get((route.name, route.version))
        if batcher is not None:
            self._memory.learn(data, request, route, batcher.check)

    async def run(self, request: Request, caller: Caller, received_ns: int, in_stream: bool = False) -> bytes:
        """Answer a decoded request. Raises GatewayError."""
        serving, plan = self._serving, request.plan
        with self._told(plan, received_ns):
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

    @contextmanager
    def _told(self, plan: Plan, received_ns: int) -> Iterator[None]:
        """A request that ends in here without an answer is written down."""
        try:
            yield
        except asyncio.CancelledError:
            gone = ClientGone("the client cancelled the call")
            observe_failure(self._serving, plan.model, plan.version, gone, received_ns)
            raise
        except Exception as exc:
            observe_failure(self._serving, plan.model, plan.version, exc, received_ns)
            raise


def refusal(exc: Exception, caller: Caller) -> Refused:
    """The status for an error. A deadline of the call itself is DEADLINE_EXCEEDED, that of a request UNAVAILABLE."""
    if not isinstance(exc, GatewayError | Refused):
        log.error("unforeseen error", exc_info=exc)
    if isinstance(exc, DeadlineExceeded) and (left := caller.remaining_s()) is not None and left < _NEARLY_S:
        return Refused(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")  # whoever is first, the client reads these words
    return refused(exc)

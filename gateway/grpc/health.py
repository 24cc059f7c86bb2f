"""grpc.health.v1: what balancers and Kubernetes ask. Serving means what `/v2/health/ready` means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from gateway.grpc.errors import Refused
from gateway.grpc.messages import HEALTH, SERVICE, message
from gateway.grpc.status import Code
from gateway.state import Gateway

_LOOK_S = 0.1

_Response = message("grpc.health.v1.HealthCheckResponse")
_KNOWN = ("", SERVICE, HEALTH)


class Health:
    """The service for one gateway. `close` ends every watch."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._closing = asyncio.Event()

    def close(self) -> None:
        self._closing.set()

    async def check(self, request: Any, caller: object) -> Any:
        """Raises Refused for a service that is not here."""
        if request.service not in _KNOWN:
            raise Refused(Code.NOT_FOUND, f"unknown service: '{request.service[:100]}'")
        return self._answer(request.service)

    async def watch(self, request: Any, caller: object) -> AsyncIterator[Any]:
        """The state now, and whenever it changes."""
        last = None
        while True:
            answer = self._answer(request.service)
            if answer != last:
                yield answer
                last = answer
            if self._closing.is_set():
                return
            await asyncio.sleep(_LOOK_S)

    def _answer(self, service: str) -> Any:
        if service not in _KNOWN:
            return _Response(status=_Response.SERVICE_UNKNOWN)
        ready = is_ready(self._gateway)
        return _Response(status=_Response.SERVING if ready else _Response.NOT_SERVING)


def is_ready(gateway: Gateway) -> bool:
    """Whether predictions should be sent here."""
    return not gateway.draining.is_set() and gateway.serving.ready()[0]

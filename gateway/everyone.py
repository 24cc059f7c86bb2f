"""What must hold in every process of this gateway, and what only all of them together know.

A gateway is one process, or several on one port (gateway/fronts). Either way a client talks to *the* gateway: a model
that is unloaded is unloaded, a count is the count of all. So whatever changes or asks for more than the process that
was asked goes through here, by name:

- a *deed* is done by every process, the primary first (what it refuses nobody does);
- a *question* is answered by the primary, for all.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.state import Gateway

_PATIENCE_S, _LOOK_S = 2.0, 0.005


class Everyone(Protocol):
    """How to reach every process. Arguments and answers are what JSON can say."""

    async def do(self, gateway: Gateway, deed: str, given: Mapping[str, Any]) -> list[Any]:
        """Have it done everywhere; the answers, that of the primary first. Raises GatewayError."""

    async def ask(self, gateway: Gateway, question: str, given: Mapping[str, Any]) -> Any:
        """The answer to a question. Raises GatewayError."""


class Alone:
    """One process: it is everyone."""

    async def do(self, gateway: Gateway, deed: str, given: Mapping[str, Any]) -> list[Any]:
        return [await done(gateway, deed, given)]

    async def ask(self, gateway: Gateway, question: str, given: Mapping[str, Any]) -> Any:
        return answer(gateway, question, given)


async def done(gateway: Gateway, deed: str, given: Mapping[str, Any]) -> Any:
    """Do a deed in this process."""
    outcome = DEEDS[deed](gateway, **given)
    return await outcome if inspect.isawaitable(outcome) else outcome


def answer(gateway: Gateway, question: str, given: Mapping[str, Any]) -> Any:
    """Answer a question from what this process knows."""
    return QUESTIONS[question](gateway, **given)


async def _follow(gateway: Gateway, sequence: int) -> None:
    """Wait until routing shows what the catalog held at `sequence`, so that an answered change is a change in force.

    Gives up silently after a while: the change is made, and the follower goes on trying.
    """
    end = time.monotonic() + _PATIENCE_S
    while gateway.serving.table.sequence < sequence and time.monotonic() < end:
        await gateway.follower.poke()
        await asyncio.sleep(_LOOK_S)


async def _wait_open(gateway: Gateway, name: str, version: str) -> None:
    """Wait until a version that is being opened answers here. Gives up silently after a while."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        if _is_open(gateway, name, version):
            return
        await asyncio.sleep(_LOOK_S)


def _is_open(gateway: Gateway, name: str, version: str | None) -> bool:
    """Whether a version (None: the one that answers by default) would answer here and now."""
    try:
        route = gateway.serving.table.resolve(name, version)
    except GatewayError:
        return False
    return any(session.ready for session in route.sessions.values())


def _hold(gateway: Gateway, name: str, loaded: bool, override: Mapping[str, Any] | None = None) -> None:
    gateway.follower.set_hold(name, loaded, override)


def _set_log(gateway: Gateway, settings: Mapping[str, Any]) -> dict[str, Any]:
    return gateway.controls.set_log(settings)


def _set_trace(gateway: Gateway, settings: Mapping[str, Any], model: str | None = None) -> dict[str, Any]:
    return gateway.controls.set_trace(settings, model)


def _unregister_region(gateway: Gateway, name: str | None = None) -> None:
    gateway.serving.regions.unregister(name)


def _register_region(gateway: Gateway, name: str, key: str, offset: int, byte_size: int) -> None:
    gateway.serving.regions.register(name, key, offset, byte_size)


def _metrics(gateway: Gateway) -> str:
    return gateway.serving.metrics.render().decode()


def _statistics(gateway: Gateway, name: str | None = None, version: str | None = None) -> list[dict[str, Any]]:
    return gateway.serving.statistics.of(name, version)


DEEDS: dict[str, Callable[..., Any]] = {
    "follow": _follow,
    "wait_open": _wait_open,
    "is_open": _is_open,
    "hold": _hold,
    "set_log": _set_log,
    "set_trace": _set_trace,
    "unregister_region": _unregister_region,
}
QUESTIONS: dict[str, Callable[..., Any]] = {
    "metrics": _metrics,
    "statistics": _statistics,
    "register_region": _register_region,
}
"""`register_region` is one because the file is opened once, by the primary: the others get the descriptor."""

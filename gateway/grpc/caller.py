"""Who calls: the metadata of a call, its key, and how long it will wait. The same keyring and rules as HTTP."""

from __future__ import annotations

import math
from typing import Any, Protocol

from gateway.auth import Keyring
from gateway.errors import DeadlineExceeded

_HOST = "localhost"
"""Stands for the host name in the guard against web pages: no browser can be made to speak gRPC."""

_MOST_PATH = 1024

PIN = "forgeway-variant"
"""Metadata that names the variant a call insists on."""


class Caller(Protocol):
    """What is needed of a grpc.aio.ServicerContext."""

    def invocation_metadata(self) -> Any: ...

    def time_remaining(self) -> float | None: ...


def header(caller: Caller, name: str) -> str | None:
    """The first value of a metadata key (lower case)."""
    for key, value in caller.invocation_metadata() or ():
        if key == name:
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return None


def remaining_s(caller: Caller) -> float | None:
    """Seconds until the client's deadline; None when it has none."""
    left = caller.time_remaining()
    return left if left is not None and math.isfinite(left) else None


async def admit(keyring: Keyring, caller: Caller, method: str, path: str) -> None:
    """Let the call in, as the same call over HTTP would be. Raises Unauthorized, Forbidden."""
    if not keyring.is_open:
        # Names in messages may be of any length and paths are remembered: an endless one is nobody's and needs admin.
        await keyring.admit(method, path if len(path) <= _MOST_PATH else "/", _HOST, None, _secret(caller))


def pin(caller: Caller) -> str | None:
    """The variant the call insists on."""
    return header(caller, PIN)


def timeout_s(caller: Caller, asked_s: float | None) -> float | None:
    """The smaller of the client's deadline and the request's own `timeout`. Raises DeadlineExceeded."""
    left = remaining_s(caller)
    if left is None:
        return asked_s
    if left <= 0:
        raise DeadlineExceeded("Request timeout expired")
    return left if asked_s is None else min(left, asked_s)


def _secret(caller: Caller) -> str | None:
    kind, _, value = (header(caller, "authorization") or "").partition(" ")
    return (value.strip() if kind.lower() == "bearer" else header(caller, "x-api-key")) or None

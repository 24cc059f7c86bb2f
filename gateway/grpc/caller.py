"""Who calls: the metadata of a call, its key, and how long it will wait. The same keyring and rules as HTTP."""

from __future__ import annotations

from typing import Protocol

from gateway.auth import Keyring
from gateway.errors import DeadlineExceeded

_HOST = "localhost"
"""Stands for the host name in the guard against web pages: no browser can be made to speak gRPC."""

_MOST_PATH = 1024

PIN = "forgeway-variant"
"""Metadata that names the variant a call insists on."""


class Caller(Protocol):
    """What the handlers of methods see of a call (call.py)."""

    def header(self, name: str) -> str | None:
        """The first value of a metadata key (lower case)."""

    def remaining_s(self) -> float | None:
        """Seconds until the client's deadline; None when it has none."""


async def admit(keyring: Keyring, caller: Caller, method: str, path: str) -> None:
    """Let the call in, as the same call over HTTP would be. Raises Unauthorized, Forbidden."""
    if not keyring.is_open:
        # Names in messages may be of any length and paths are remembered: an endless one is nobody's and needs admin.
        await keyring.admit(method, path if len(path) <= _MOST_PATH else "/", _HOST, None, _secret(caller))


def pin(caller: Caller) -> str | None:
    """The variant the call insists on."""
    return caller.header(PIN)


def timeout_s(caller: Caller, asked_s: float | None) -> float | None:
    """The smaller of the client's deadline and the request's own `timeout`. Raises DeadlineExceeded."""
    left = caller.remaining_s()
    if left is None:
        return asked_s
    if left <= 0:
        raise DeadlineExceeded("Request timeout expired")
    return left if asked_s is None else min(left, asked_s)


def _secret(caller: Caller) -> str | None:
    kind, _, value = (caller.header("authorization") or "").partition(" ")
    return (value.strip() if kind.lower() == "bearer" else caller.header("x-api-key")) or None

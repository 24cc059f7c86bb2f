"""What the headers of a call say: which method, until when, packed how, and the metadata."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from gateway.grpc.errors import Refused
from gateway.grpc.status import Code
from gateway.http2.headers import Headers
from gateway.http2.limits import HEADER_BYTES

if TYPE_CHECKING:
    from gateway.grpc.call import Call

_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MOST_DIGITS = 8


class Rpc(NamedTuple):
    """One method, on serialized messages: exactly one of the two is set.

    `unary(message, call)` answers one message; `stream(messages, call)` any number of them with any number. What ends
    a call with a status is raised as Refused.
    """

    unary: Callable[[bytes, Call], Awaitable[bytes]] | None = None
    stream: Callable[[AsyncIterator[bytes], Call], AsyncIterator[bytes]] | None = None


class Head(NamedTuple):
    rpc: Rpc
    metadata: Mapping[str, str]
    """The first value of each key, as it was written: base64 under keys that end in `-bin`."""
    timeout_s: float | None
    encoding: str


class NotGrpc(Exception):
    """A request of another kind; `status` is what HTTP has for it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def head_of(headers: Headers, rpcs: Mapping[bytes, Rpc]) -> Head:
    """Raises NotGrpc; Refused for a method that is not here, and headers that no client would write."""
    found: dict[bytes, bytes] = {}
    for name, value in headers.fields:
        found.setdefault(name, value)
    if found[b":method"] != b"POST":
        raise NotGrpc(405)
    kind = found.get(b"content-type", b"")
    if kind != b"application/grpc" and not kind.startswith((b"application/grpc+", b"application/grpc;")):
        raise NotGrpc(415)
    rpc = rpcs.get(found[b":path"])
    if rpc is None:
        raise Refused(Code.UNIMPLEMENTED, f"Method not found: {found[b':path'].decode('latin-1')[:200]}")
    if headers.nbytes > HEADER_BYTES:
        text = f"metadata of {headers.nbytes} bytes; the limit is {HEADER_BYTES}"
        raise Refused(Code.RESOURCE_EXHAUSTED, text)
    metadata = {name.decode("latin-1"): value.decode("latin-1") for name, value in found.items() if name[:1] != b":"}
    timeout = found.get(b"grpc-timeout")
    encoding = found.get(b"grpc-encoding", b"identity").decode("latin-1")
    return Head(rpc, metadata, None if timeout is None else seconds(timeout), encoding)


def seconds(timeout: bytes) -> float:
    """Of a `grpc-timeout`. Raises Refused."""
    number, unit = timeout[:-1], timeout[-1:]
    if unit not in _UNIT_S or not number.isdigit() or len(number) > _MOST_DIGITS:
        raise Refused(
            Code.INTERNAL, f"grpc-timeout {timeout[:20].decode('latin-1')!r} is no time: 1 to 8 digits and a unit"
        )
    return int(number) * _UNIT_S[unit]

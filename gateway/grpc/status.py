"""The status of a call, as HTTP/2 carries it ("gRPC over HTTP2": Status, Status-Message, Trailers-Only)."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

from gateway.http2.frames import Block, block
from gateway.http2.headers import encode


class Code(IntEnum):
    """The status codes of gRPC (its doc/statuscodes.md)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_ANSWER = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
)
HEAD = block(encode(*_ANSWER))
"""The headers before the first message of an answer."""

OK = block(encode((b"grpc-status", b"0")), end=True)
"""The trailers behind the last one."""

_PLAIN = frozenset(range(0x20, 0x7F)) - {ord("%")}


@lru_cache(256)
def ended(code: Code, text: str, alone: bool) -> Block:
    """What ends a call with a status. `alone`: there was no answer, so the headers come along."""
    fields = [*_ANSWER] if alone else []
    fields.append((b"grpc-status", b"%d" % code))
    if text:
        fields.append((b"grpc-message", percent_encoded(text)))
    return block(encode(*fields), end=True)


def no_grpc(status: int) -> Block:
    """The plain HTTP status of what is no call."""
    return block(encode((b":status", b"%d" % status)), end=True)


def percent_encoded(text: str) -> bytes:
    """A text as a header carries it."""
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in text.encode("utf-8", "replace"))

"""The frames of HTTP/2 (RFC 9113, sections 4 to 7) as bytes."""

from __future__ import annotations

import struct
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
MAX_FRAME = 16_384
"""Bytes of payload a frame to us may have: the least the RFC allows, so little of one ever waits for its rest."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 0x5, 0x6, 0x7, 0x8, 0x9
ENHANCE_YOUR_CALM = 0xB

ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME_SIZE, MAX_HEADER_LIST = 0x2, 0x3, 0x4, 0x5, 0x6
FIRST_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1
LARGEST_FRAME = 2**24 - 1


class ConnectionFailed(Exception):
    """The peer broke a rule: the connection ends with `code` (section 7) and a text for whoever debugs the peer."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFailed(Exception):
    """The peer broke a rule on one stream, which ends with `code`; the others go on."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Block(NamedTuple):
    """A header block as one HEADERS frame, but for the number of its stream."""

    start: bytes
    payload: bytes


def block(payload: bytes, end: bool = False) -> Block:
    """`end`: nothing follows on the stream. Ours are short: one frame each."""
    assert len(payload) <= MAX_FRAME
    return Block(len(payload).to_bytes(3, "big") + bytes((HEADERS, END_HEADERS | (END_STREAM if end else 0))), payload)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def data_head(nbytes: int, stream: int) -> bytes:
    """The head of a DATA frame that does not end its stream."""
    return struct.pack(">HBBBI", nbytes >> 8, nbytes & 0xFF, DATA, 0, stream)


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int, text: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + text.encode())


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of DATA or HEADERS without padding. Raises ConnectionFailed."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFailed(PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]

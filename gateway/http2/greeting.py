"""The first bytes of a connection: the preface of HTTP/2, or somebody who came to the wrong port."""

from __future__ import annotations

import json

from gateway.http2.frames import PREFACE, PROTOCOL_ERROR, ConnectionFailed, goaway

_WRONG = "this port speaks HTTP/2 without TLS, as gRPC does; predictions over HTTP/1.1 have a port of their own"


def complete(data: bytes) -> bool:
    """Whether `data` begins with the whole preface. Raises ConnectionFailed when it can become none."""
    start = data[: len(PREFACE)]
    if not PREFACE.startswith(start):
        raise ConnectionFailed(PROTOCOL_ERROR, _WRONG)
    return len(start) == len(PREFACE)


def refusal(code: int, text: str) -> bytes:
    """What somebody is told who has not greeted: HTTP/1.1 is understood by whoever came here by mistake."""
    if code != PROTOCOL_ERROR:
        return goaway(0, code, text)
    body = json.dumps({"error": text}).encode()
    head = b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    return head % len(body) + b"connection: close\r\n\r\n" + body

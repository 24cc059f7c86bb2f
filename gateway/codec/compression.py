"""`Content-Encoding` of request bodies: gzip and deflate, bounded by what they unpack to."""

from __future__ import annotations

import zlib

from gateway.errors import BadRequest, TooLarge, Unsupported

_WINDOW = {b"gzip": 31, b"deflate": 15}


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The plain body. Raises Unsupported, TooLarge (over `limit` bytes), BadRequest."""
    kind = encoding.strip().lower()
    if kind in (b"", b"identity"):
        return body
    if kind not in _WINDOW:
        text = f"content encoding '{kind.decode('latin-1')[:40]}' is not supported; gzip and deflate are"
        raise Unsupported(text, {"accept-encoding": "gzip, deflate"})
    unpacker = zlib.decompressobj(_WINDOW[kind])
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as exc:
        raise BadRequest(f"the body is not valid {kind.decode()}: {exc}") from None
    if len(plain) > limit:
        raise TooLarge(f"the body unpacks to more than {limit} bytes")
    if not unpacker.eof:
        raise BadRequest(f"the {kind.decode()} body is cut off")
    return plain

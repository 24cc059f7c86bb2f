"""gzip and deflate: of request bodies, bounded by what they unpack to, and of answers, as `Accept-Encoding` asks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache

from gateway.errors import BadRequest, TooLarge, Unsupported

LEAST_BYTES = 1024
"""Answers below this size are sent as they are: they fit one packet either way."""

_LEVEL = 1
_SAMPLE_BYTES = 4096
_WORTH = 0.9
_WINDOW = {b"gzip": 31, b"deflate": 15}


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The plain body. Raises Unsupported, TooLarge (over `limit` bytes), BadRequest."""
    kind = encoding.strip().lower()
    if kind in (b"", b"identity"):
        return body
    if kind not in _WINDOW:
        text = f"Unsupported compression type '{kind.decode('latin-1')[:40]}'; gzip and deflate are supported"
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


def compress(chunks: Sequence[bytes | memoryview], encoding: bytes) -> bytes:
    """All chunks as one body. `deflate` is a zlib stream, as HTTP has it."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[encoding])
    return b"".join([*map(packer.compress, chunks), packer.flush()])


def pays(chunks: Sequence[bytes | memoryview]) -> bool:
    """Whether the body will get noticeably smaller, told from the middle of its largest chunk: tensors often do not,
    and many clients ask for packing without meaning it."""
    largest = max(chunks, key=len)
    start = max(0, (len(largest) - _SAMPLE_BYTES) // 2)
    sample = largest[start : start + _SAMPLE_BYTES]
    return len(zlib.compress(sample, _LEVEL)) < _WORTH * len(sample)


@lru_cache(256)
def preferred(accept: bytes) -> bytes | None:
    """The encoding an `Accept-Encoding` header likes best, gzip before deflate; None: the plain body is as good."""
    weights: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        name, *parameters = [word.strip() for word in part.split(";")]
        weights[name] = next((_weight(word[2:]) for word in parameters if word.startswith("q=")), 1.0)
    other = weights.get("*", 0.0)
    ranked = sorted(_WINDOW, key=lambda kind: -weights.get(kind.decode(), other))
    best = weights.get(ranked[0].decode(), other)
    return ranked[0] if best > 0 and best >= weights.get("identity", 0.0) else None


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0

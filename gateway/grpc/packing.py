"""Messages between the five bytes that gRPC puts before each: compressed or not, and a length."""

from __future__ import annotations

import zlib

from gateway.grpc.errors import Refused
from gateway.grpc.status import Code

PREFIX_BYTES = 5
INT32_MAX = 2**31 - 1
_WBITS = {"gzip": 31, "deflate": 15}


def prefix(nbytes: int) -> bytes:
    """What stands before a message of ours, which is never compressed."""
    return nbytes.to_bytes(PREFIX_BYTES, "big")


def whole_size(start: bytes | bytearray) -> int:
    """Bytes of the message that begins with `start`, its prefix included; 0 when that is not known yet.

    Raises Refused for what is no message, or one beyond INT32_MAX.
    """
    if len(start) < PREFIX_BYTES:
        return 0
    if start[0] > 1:
        raise Refused(Code.INTERNAL, f"the compressed-flag of a message is 0 or 1, not {start[0]}")
    nbytes = int.from_bytes(start[1:PREFIX_BYTES], "big")
    if nbytes > INT32_MAX:
        raise Refused(Code.RESOURCE_EXHAUSTED, f"a message of {nbytes} bytes is larger than {INT32_MAX}")
    return PREFIX_BYTES + nbytes


def unpacked(message: bytes, encoding: str, most: int) -> bytes:
    """A compressed message. Raises Refused, also for one of more than `most` bytes."""
    wbits = _WBITS.get(encoding)
    if wbits is None:
        if encoding == "identity":
            raise Refused(Code.INTERNAL, "a compressed message on a call without grpc-encoding")
        raise Refused(Code.UNIMPLEMENTED, f"messages in grpc-encoding {encoding[:40]!r} are not read")
    unpacker = zlib.decompressobj(wbits)
    try:
        plain = unpacker.decompress(message, most)
    except zlib.error as exc:
        raise Refused(Code.INTERNAL, f"the message is no {encoding}: {exc}") from None
    if unpacker.unconsumed_tail:
        raise Refused(Code.RESOURCE_EXHAUSTED, f"the message has more than {most} bytes when unpacked")
    if not unpacker.eof:
        raise Refused(Code.INTERNAL, f"the message is no {encoding}: it is cut off")
    return plain

"""The bytes of a ModelInferRequest cut where its tensors begin, and of a ModelInferResponse put together around them.

Tensors are most of these messages, and clients send the same words around them again and again. So a request is cut,
without parsing it, into its head (everything else), its id and views of its `raw_input_contents`; the head is parsed
once and remembered. An answer is a remembered head, the id and the tensors: serialized messages may be concatenated
(protobuf, "Encoding"), so nothing is copied more than once.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.grpc.messages import DecodeError, message

_ID, RAW_INPUT, RAW_OUTPUT = 3 << 3 | 2, 7 << 3 | 2, 6 << 3 | 2
_BYTES, _MAX_VARINT = 2, 10
_CUT_OUT = (RAW_INPUT, _ID)
_ModelInferRequest = message("ModelInferRequest")


class Pieces(NamedTuple):
    """`head`: the message without `id` and `raw_input_contents`."""

    head: bytes
    id: bytes
    raw: list[memoryview]


def cut(data: bytes) -> Pieces:
    """Cut a serialized ModelInferRequest. Raises DecodeError for what is no message."""
    view, size = memoryview(data), len(data)
    at, kept = 0, 0
    head: list[memoryview] = []
    request_id, raw = b"", []
    while at < size:
        start, tag = at, data[at]
        at += 1
        if tag & 7 != _BYTES or tag >= 0x80:  # nothing of this message; unknown fields are for the parser to skip
            return _parsed_by_rule(data)
        length = data[at] if at < size else _MAX_VARINT
        at += 1
        if length >= 0x80:
            length, at = varint(data, at - 1)
        end = at + length
        if end > size:
            raise DecodeError("Error parsing message: a field is cut off")
        if tag in _CUT_OUT:
            if kept < start:
                head.append(view[kept:start])
            kept = end
            if tag == _ID:
                request_id = data[at:end]
            else:
                raw.append(view[at:end])
        at = end
    if kept < size:
        head.append(view[kept:size])
    return Pieces(b"".join(head), request_id, raw)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and the offset behind it. Raises DecodeError."""
    number = shift = 0
    for nth in range(at, min(at + _MAX_VARINT, len(data))):
        byte = data[nth]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, nth + 1
        shift += 7
    raise DecodeError("Error parsing message: a length has no end")


def field(tag: int, nbytes: int) -> bytes:
    """Tag and length of a field of `nbytes` bytes."""
    out = bytearray((tag,))
    while nbytes > 0x7F:
        out.append(nbytes & 0x7F | 0x80)
        nbytes >>= 7
    out.append(nbytes)
    return bytes(out)


def joined(head: bytes, request_id: bytes, outputs: list[bytes | memoryview]) -> bytes:
    """A serialized ModelInferResponse."""
    parts: list[bytes | memoryview] = [head]
    if request_id:
        parts += (field(_ID, len(request_id)), request_id)
    for data in outputs:
        parts += (field(RAW_OUTPUT, len(data)), data)
    return b"".join(parts)


def _parsed_by_rule(data: bytes) -> Pieces:
    """The slow way, for messages with fields that we do not know."""
    request = _ModelInferRequest.FromString(data)
    request_id, raw = request.id.encode(), [memoryview(entry) for entry in request.raw_input_contents]
    request.ClearField("id")
    request.ClearField("raw_input_contents")
    return Pieces(request.SerializeToString(), request_id, raw)

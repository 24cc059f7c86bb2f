"""The hop between the gateway and a runner: messages on a unix SEQPACKET socket, one datagram each.

The first byte is the kind. What happens per batch (RUN, DONE, FAILED) is fixed binary framing, little-endian, without
a byte of anybody's object graph; what happens per session (LOAD, UNLOAD and their answers) is a kind byte and JSON.
Tensors never travel here: a message says where in the slot they lie.

    RUN     B kind  B slot  H tensors  I session  Q batch  Q where outputs may begin  B instances   then tensors
    DONE    B kind  B slot  H tensors  I session  Q batch  q run start  q run end (ns)     then tensors
    FAILED  the header of DONE, then the runtime's words in UTF-8
    tensor  H index in the signature  B datatype code  B rank  4 x  Q offset  Q bytes  q dimension * rank

Both sides read with bounds: a datagram that is not exactly one message is a WireError, whoever sent it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import msgspec

RUN, DONE, FAILED, LOAD, LOADED, REFUSED, UNLOAD, UNLOADED, READY = range(1, 10)

MAX_MESSAGE = 1 << 16
MAX_RANK = 32

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16",
    "BYTES",
)  # fmt: skip
ITEM_BYTES = dict(zip(DATATYPES, (1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2, 0), strict=True))
"""Bytes of one element; 0 for BYTES, whose elements are 4-byte length-prefixed (V2 binary form)."""

_CODE = {name: code for code, name in enumerate(DATATYPES)}
_RUN = struct.Struct("<BBHIQQB")
_DONE = struct.Struct("<BBHIQqq")
_PLACE = struct.Struct("<HBBxxxxQQ")
_DIMS = tuple(struct.Struct(f"<{rank}q") for rank in range(MAX_RANK + 1))


class WireError(ValueError):
    """Not a message of ours. The sender is broken; nothing of the datagram was used."""


class Place(NamedTuple):
    """One tensor in a slot: C order, little-endian, `offset` from the start of the slot."""

    nth: int
    """Position in the signature's inputs (RUN) or outputs (DONE)."""
    datatype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class Run(NamedTuple):
    slot: int
    session: int
    batch: int
    free: int
    """Offset in the slot from which outputs may be written."""
    places: tuple[Place, ...]
    instances: int = 1
    """How many batches, itself included, may run while it runs (instances.py)."""


class Done(NamedTuple):
    slot: int
    session: int
    batch: int
    start_ns: int
    end_ns: int
    places: tuple[Place, ...]


class Failed(NamedTuple):
    slot: int
    session: int
    batch: int
    start_ns: int
    end_ns: int
    text: str


class WarmInput(msgspec.Struct, frozen=True):
    """One input as the signature has it: what the runner needs to know of it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Load(msgspec.Struct, frozen=True):
    """Open a session that runs `instances` batches at a time, each with `threads` threads.

    `warm` lists row counts to run once with zeros before anybody waits for them.
    """

    session: int
    files: dict[str, str]
    options: dict[str, object]
    threads: int
    inputs: tuple[WarmInput, ...]
    outputs: tuple[WarmInput, ...]
    warm: tuple[int, ...] = ()
    instances: int = 1


class Loaded(msgspec.Struct, frozen=True):
    """The session is open. `run_s`: time of one warm run of one row, when there was one."""

    session: int
    seconds: float
    run_s: float | None = None
    note: str = ""


class Refused(msgspec.Struct, frozen=True):
    """The runtime could not open the session; `text` is what it said."""

    session: int
    text: str


class Unload(msgspec.Struct, frozen=True):
    session: int


class Unloaded(msgspec.Struct, frozen=True):
    session: int


class Ready(msgspec.Struct, frozen=True):
    """The runner has imported its runtime and waits for work."""

    pid: int


_BODIES: dict[int, type[Load | Loaded | Refused | Unload | Unloaded | Ready]] = {
    LOAD: Load,
    LOADED: Loaded,
    REFUSED: Refused,
    UNLOAD: Unload,
    UNLOADED: Unloaded,
    READY: Ready,
}
_KIND = {body: kind for kind, body in _BODIES.items()}
_DECODERS = {kind: msgspec.json.Decoder(body) for kind, body in _BODIES.items()}
_encode_json = msgspec.json.Encoder().encode

Body = Load | Loaded | Refused | Unload | Unloaded | Ready
Message = Run | Done | Failed | Body


def pack_run(slot: int, session: int, batch: int, free: int, places: Sequence[Place], instances: int = 1) -> bytes:
    parts = [_RUN.pack(RUN, slot, len(places), session, batch, free, instances)]
    _pack_places(parts, places)
    return b"".join(parts)


def pack_done(slot: int, session: int, batch: int, start_ns: int, end_ns: int, places: Sequence[Place]) -> bytes:
    parts = [_DONE.pack(DONE, slot, len(places), session, batch, start_ns, end_ns)]
    _pack_places(parts, places)
    return b"".join(parts)


def pack_failed(slot: int, session: int, batch: int, start_ns: int, end_ns: int, text: str) -> bytes:
    return _DONE.pack(FAILED, slot, 0, session, batch, start_ns, end_ns) + text.encode("utf-8", "replace")[:8192]


def pack_body(body: Body) -> bytes:
    message = bytes((_KIND[type(body)],)) + _encode_json(body)
    if len(message) > MAX_MESSAGE:
        raise WireError(f"a {type(body).__name__} message of {len(message)} bytes; the limit is {MAX_MESSAGE}")
    return message


def pack_load(load: Load) -> bytes:
    """Raises WireError when the session, or a batch of it, has more tensors than a message can tell of."""
    for specs in (load.inputs, load.outputs):
        nbytes = _DONE.size + sum(_PLACE.size + 8 * len(spec.shape) for spec in specs)
        if nbytes > MAX_MESSAGE:
            raise WireError(
                f"batches of {len(specs)} tensors take messages of {nbytes} bytes; the limit is {MAX_MESSAGE}"
            )
    return pack_body(load)


def receive(end: socket.socket, flags: int = 0) -> bytes:
    """The next datagram; nothing once the other end has gone. Raises BlockingIOError when there is none yet.

    That the other end went without having read everything is told once, as an error, before what it had said itself.
    """
    try:
        return end.recv(MAX_MESSAGE, flags)
    except ConnectionError:
        return end.recv(MAX_MESSAGE, flags)


def unpack(data: bytes) -> Message:
    """The message in one datagram. Raises WireError for anything else."""
    try:
        kind = data[0]
        if kind == DONE:
            _, slot, count, session, batch, start_ns, end_ns = _DONE.unpack_from(data)
            return Done(slot, session, batch, start_ns, end_ns, _unpack_places(data, _DONE.size, count))
        if kind == RUN:
            _, slot, count, session, batch, free, instances = _RUN.unpack_from(data)
            return Run(slot, session, batch, free, _unpack_places(data, _RUN.size, count), instances)
        if kind == FAILED:
            _, slot, _, session, batch, start_ns, end_ns = _DONE.unpack_from(data)
            return Failed(slot, session, batch, start_ns, end_ns, data[_DONE.size :].decode("utf-8", "replace"))
        return _DECODERS[kind].decode(data[1:])
    except (IndexError, KeyError, struct.error, msgspec.MsgspecError) as exc:
        raise WireError(f"not a message: {len(data)} bytes, {exc}") from exc


def check_place(place: Place, slot_bytes: int) -> None:
    """Raise WireError unless the tensor lies inside the slot and is as large as its shape says."""
    _, datatype, shape, offset, nbytes = place
    if offset + nbytes > slot_bytes:
        raise WireError(f"tensor {place.nth} ends at {offset + nbytes}, the slot at {slot_bytes}")
    if any(size < 0 for size in shape):
        raise WireError(f"tensor {place.nth} has the shape {list(shape)}")
    if datatype != "BYTES" and nbytes != prod(shape) * ITEM_BYTES[datatype]:
        raise WireError(f"tensor {place.nth}: {nbytes} bytes are not a {datatype} of shape {list(shape)}")


def _pack_places(parts: list[bytes], places: Sequence[Place]) -> None:
    for index, datatype, shape, offset, nbytes in places:
        rank = len(shape)
        if rank > MAX_RANK:
            raise WireError(f"tensor {index} has rank {rank}; the limit is {MAX_RANK}")
        parts.append(_PLACE.pack(index, _CODE[datatype], rank, offset, nbytes))
        parts.append(_DIMS[rank].pack(*shape))


def _unpack_places(data: bytes, at: int, count: int) -> tuple[Place, ...]:
    places = []
    for _ in range(count):
        index, code, rank, offset, nbytes = _PLACE.unpack_from(data, at)
        dims = _DIMS[rank]
        places.append(Place(index, DATATYPES[code], dims.unpack_from(data, at + _PLACE.size), offset, nbytes))
        at += _PLACE.size + dims.size
    if at != len(data):
        raise WireError(f"{len(data) - at} bytes after the last tensor")
    return tuple(places)

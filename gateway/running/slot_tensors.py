"""Tensors in a slot, as the runner sees them: inputs read where they lie, outputs copied behind them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from compilers.targets import Tensors
from gateway.running import wire
from gateway.running.slots import aligned
from model_store.datatypes import numpy_dtype, v2_name


def read_tensor(view: memoryview, place: wire.Place) -> np.ndarray:
    """The tensor at `place`, without a copy (BYTES excepted: an object array of bytes). Raises WireError."""
    wire.check_place(place, len(view))
    if place.datatype == "BYTES":
        return _read_texts(view[place.offset : place.offset + place.nbytes], place)
    dtype = numpy_dtype(place.datatype)
    return np.frombuffer(view, dtype, prod(place.shape), place.offset).reshape(place.shape)


def write_tensors(
    view: memoryview, free: int, wanted: Sequence[tuple[int, str, str]], outputs: Tensors
) -> list[wire.Place]:
    """Copy the wanted outputs (index, name, datatype) into the slot from `free` on.

    Raises ValueError when they do not fit, KeyError if one lacks.
    """
    places = []
    offset = free
    for index, name, datatype in wanted:
        array = outputs[name]
        offset = aligned(offset)
        if datatype == "BYTES":
            data: np.ndarray = np.frombuffer(_texts(array), np.uint8)
        else:
            if v2_name(array.dtype) != datatype:
                array = array.astype(numpy_dtype(datatype))
            data = array
        if offset + data.nbytes > len(view):
            raise ValueError(f"the batch needs {offset + data.nbytes} bytes, a slot has {len(view)} (slot_bytes)")
        np.copyto(np.frombuffer(view, data.dtype, data.size, offset).reshape(data.shape), data)
        places.append(wire.Place(index, datatype, array.shape, offset, data.nbytes))
        offset += data.nbytes
    return places


def _read_texts(data: memoryview, place: wire.Place) -> np.ndarray:
    count, at = prod(place.shape), 0
    texts = np.empty(count, dtype=object)
    for i in range(count):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + length > len(data):
            raise wire.WireError(f"tensor {place.nth}: element {i} reaches beyond its {len(data)} bytes")
        texts[i] = bytes(data[at + 4 : at + 4 + length])
        at += 4 + length
    return texts.reshape(place.shape)


def _texts(array: np.ndarray) -> bytes:
    parts = []
    for item in array.ravel().tolist():
        text = item if isinstance(item, bytes) else str(item).encode()
        parts += [len(text).to_bytes(4, "little"), text]
    return b"".join(parts)

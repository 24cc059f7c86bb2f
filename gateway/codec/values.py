"""JSON numbers and strings to tensor bytes and back, strictly: nothing is cut, wrapped or guessed."""

from __future__ import annotations

import json
import struct
from math import prod
from typing import Any

import numpy as np
import orjson

from gateway.codec import long_arrays
from gateway.codec.long_arrays import Long
from gateway.errors import BadRequest
from gateway.tensors import Tensor, text_ends
from model_store.datatypes import NUMPY

MOST_NESTING = 100
"""Of JSON lists, as in Triton."""

PACKED = {"FP32": "f", "FP64": "d"}
"""Types that `struct` packs from floats as numpy would, at a third of the cost, and their codes there."""

HALF = ("FP16", "BF16")
"""Types JSON does not carry (PROTOCOL section 2)."""


def to_tensor(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    """`data`: a flat or nested row-major list (or a bare value for shape []). Raises BadRequest."""
    if datatype == "BYTES":
        return Tensor(datatype, shape, _texts(name, shape, data))
    array = numbers(name, datatype, data)
    if array.size != prod(shape):
        raise BadRequest(
            f"Unable to parse 'data': Shape does not match true shape of 'data' field: input '{name}' has "
            f"{array.size} elements of shape {list(array.shape)}, its 'shape' is {list(shape)}"
        )
    return Tensor(datatype, shape, array.tobytes())


def packed_tensor(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    """`to_tensor` for a flat list of numbers for one of the `PACKED` types."""
    if len(data) == prod(shape):
        try:
            return Tensor(datatype, shape, struct.pack(f"<{len(data)}{PACKED[datatype]}", *data))
        except OverflowError:  # a number beyond FP32: infinite
            pass
    return to_tensor(name, datatype, shape, data)


def long_tensor(datatype: str, shape: tuple[int, ...] | None, array: Long) -> Tensor | None:
    """`to_tensor` for the JSON of a long array of numbers, `shape` None: as it is nested.

    None unless it is plainly one of this size and type.
    """
    if datatype == "BYTES" or datatype in HALF:
        return None
    values = long_arrays.read(array, NUMPY[datatype])
    if values is None or (shape is not None and values.size != prod(shape)):
        return None
    return Tensor(datatype, values.shape if shape is None else shape, values.data.cast("B"))


def numbers(name: str, datatype: str, data: Any) -> np.ndarray:
    """A contiguous array of `datatype` from a (nested) list. Raises BadRequest when a value does not fit the type."""
    if datatype in HALF:
        raise BadRequest(
            f"receiving {datatype} data via JSON is not supported. Please use the binary data format for input '{name}'"
        )
    dtype = NUMPY[datatype]
    try:
        array = np.array(data) if data != [] else np.zeros(0, dtype)
    except (ValueError, OverflowError) as exc:
        raise BadRequest(f"Unable to parse 'data' of input '{name}': the nested lists are not of one shape") from exc
    if dtype.name == "uint64" and array.dtype.kind in "fO":
        array = _large_integers(data, array)
    kinds = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    if array.size and array.dtype.kind not in kinds and not _is_zero_or_one(array, dtype):
        raise BadRequest(f"Unable to parse 'data': input '{name}' holds values that are no {datatype}")
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise BadRequest(f"Unable to parse 'data': a value of input '{name}' is out of the range of {datatype}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype)


def to_json(name: str, tensor: Tensor, flat: bool = True) -> bytes:
    """The JSON of a tensor's data, flat or nested as its shape. Not-a-number and infinities are literals, as Python's
    json writes and reads them. Raises BadRequest for what JSON does not carry."""
    if tensor.datatype == "BYTES":
        return _texts_json(name, tensor, flat)
    refuse_half(name, tensor.datatype)
    array = np.frombuffer(tensor.data, NUMPY[tensor.datatype])
    shaped = array if flat else array.reshape(tensor.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return json.dumps(shaped.tolist()).encode()
    if shaped.ndim == 0:
        return orjson.dumps(shaped.item())
    return orjson.dumps(shaped, option=orjson.OPT_SERIALIZE_NUMPY)


def refuse_half(name: str, datatype: str) -> None:
    """Raises BadRequest for an output that JSON does not carry."""
    if datatype in HALF:
        raise BadRequest(f"sending {datatype} data via JSON is not supported: ask for output '{name}' as binary")


def split_texts(tensor: Tensor) -> list[bytes]:
    """The elements of a BYTES tensor."""
    texts, start = [], 0
    for end in text_ends(tensor.data):
        texts.append(bytes(tensor.data[start + 4 : end]))
        start = end
    return texts


def join_texts(texts: list[bytes]) -> bytes:
    return b"".join(part for text in texts for part in (len(text).to_bytes(4, "little"), text))


def _texts(name: str, shape: tuple[int, ...], data: Any) -> bytes:
    flat: list[Any] = []
    _flatten(name, data, flat)
    if not all(isinstance(item, str) for item in flat):
        raise BadRequest(f"Unable to parse 'data': input '{name}' is BYTES and must hold strings only")
    if len(flat) != prod(shape):
        raise BadRequest(
            f"Unable to parse 'data': Shape does not match true shape of 'data' field: input '{name}' has "
            f"{len(flat)} elements, its 'shape' is {list(shape)}"
        )
    return join_texts([item.encode("utf-8", "surrogatepass") for item in flat])


def _flatten(name: str, data: Any, into: list[Any], depth: int = 0) -> None:
    if not isinstance(data, list):
        into.append(data)
    elif depth > MOST_NESTING:
        raise BadRequest(f"Unable to parse 'data' of input '{name}': JSON nesting depth exceeds {MOST_NESTING}")
    else:
        for item in data:
            _flatten(name, item, into, depth + 1)


def _texts_json(name: str, tensor: Tensor, flat: bool) -> bytes:
    try:
        texts = [text.decode() for text in split_texts(tensor)]
    except UnicodeDecodeError:
        raise BadRequest(f"output '{name}' holds bytes that are not UTF-8 text: ask for it as binary") from None
    if flat:
        return orjson.dumps(texts)
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return orjson.dumps(array.reshape(tensor.shape).tolist())


def _large_integers(data: Any, array: np.ndarray) -> np.ndarray:
    """Integers beyond 63 bits among others: numpy makes floats of them. `array` when it is something else."""
    exact = np.array(data, dtype=object)
    if all(type(item) is int and 0 <= item < 2**64 for item in exact.ravel().tolist()):
        return exact.astype(np.uint64)
    return array


def _is_zero_or_one(array: np.ndarray, dtype: np.dtype) -> bool:
    """JSON clients send booleans as 0 and 1, too."""
    return dtype.kind == "b" and array.dtype.kind in "iu" and bool(((array == 0) | (array == 1)).all())

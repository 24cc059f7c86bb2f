"""The bytes of tensors: they are there, they are as many as the shape says, and they lie in the model itself.

External data is read from the upload alone, by name, within bounds, and moved into the tensor: what is stored refers
to nothing (CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, -34446, -34447 are all ways such references escaped).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from model_store.errors import InvalidModel

if TYPE_CHECKING:
    from onnx import SparseTensorProto, TensorProto

BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
"""`TensorProto.DataType` -> bits of one element; 8 is STRING and has none."""
STRING = 8
_EXTERNAL = 1  # TensorProto.EXTERNAL
MOST_RANK = 32
MOST_DENSE_BYTES = 1 << 28
MOST_BYTES = (1 << 31) - 1

_KEYS = ("location", "offset", "length", "checksum")
_DECIMAL = re.compile(r"[0-9]{1,18}\Z")
_FIELDS = {
    1: "float_data", 14: "float_data", 11: "double_data", 15: "double_data", 7: "int64_data",
    12: "uint64_data", 13: "uint64_data", STRING: "string_data",
}  # fmt: skip
_OTHER_FIELD = "int32_data"


def check_tensor(where: str, tensor: TensorProto) -> int:
    """The number of elements. Raises InvalidModel unless the payload is exactly what shape and type call for."""
    count = element_count(where, tensor.dims)
    kind = tensor.data_type
    if kind != STRING and kind not in BITS:
        raise InvalidModel(f"{where} has the unknown element type {kind}")
    if tensor.HasField("segment"):
        raise InvalidModel(f"{where} is stored in segments, which nothing reads; export the model again")
    field, wanted = _payload(kind, count)
    if tensor.HasField("raw_data") and kind != STRING:
        if any(len(getattr(tensor, name)) for name in (*set(_FIELDS.values()), _OTHER_FIELD)):
            raise InvalidModel(f"{where} holds its data twice, as bytes and as values; export the model again")
        given, unit, wanted = len(tensor.raw_data), "bytes", math.ceil(count * BITS[kind] / 8)
    else:
        given, unit = len(getattr(tensor, field)), "values"
    if given != wanted:
        raise InvalidModel(
            f"{where} has shape {_shape(tensor.dims)}, which takes {wanted:,} {unit}, but holds {given:,}"
        )
    return count


def element_count(where: str, dims: object) -> int:
    """The product of the dimensions. Raises InvalidModel for a negative one, or more of them than anything has."""
    sizes = list(dims)  # type: ignore[call-overload]
    if len(sizes) > MOST_RANK:
        raise InvalidModel(f"{where} has {len(sizes):,} dimensions; at most {MOST_RANK} are taken")
    if any(size < 0 for size in sizes):
        raise InvalidModel(f"{where} has the shape {_shape(sizes)}; a stored tensor cannot have a negative dimension")
    return math.prod(sizes)


class ExternalData:
    """Moves external data into the tensors that refer to it, out of the files of one upload."""

    def __init__(self, files: Mapping[str, bytes], folder: PurePosixPath, came_alone: bool) -> None:
        self._files, self._folder, self._came_alone = files, folder, came_alone
        self._moved = 0

    def inline(self, where: str, tensor: TensorProto) -> None:
        """Make the tensor self-contained. Raises InvalidModel naming what is wrong with the reference."""
        if tensor.data_location != _EXTERNAL:
            if tensor.external_data:
                raise InvalidModel(
                    f"{where} holds its data and refers to external data as well; export the model again"
                )
            return
        given = self._reference(where, tensor)
        data = self._file(where, given["location"])
        count = element_count(where, tensor.dims)
        if tensor.data_type not in BITS:
            raise InvalidModel(f"{where} has element type {tensor.data_type}, which cannot be external data")
        wanted = math.ceil(count * BITS[tensor.data_type] / 8)
        offset = _number(where, "offset", given.get("offset", "0"))
        length = _number(where, "length", given.get("length", str(wanted)))
        end = offset + length
        if end > len(data):
            raise InvalidModel(
                f"{where} takes bytes {offset:,} to {end:,} of {given['location']!r}, which has only {len(data):,}"
            )
        if length != wanted:
            raise InvalidModel(
                f"{where} has shape {_shape(tensor.dims)}, which takes {wanted:,} bytes, but refers to {length:,}"
            )
        self._moved += length
        if self._moved > MOST_BYTES:
            raise InvalidModel("the external data adds up to more than 2 GiB; larger models are not supported yet")
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
        tensor.raw_data = data[offset:end]

    def _reference(self, where: str, tensor: TensorProto) -> dict[str, str]:
        given: dict[str, str] = {}
        for entry in tensor.external_data:
            if entry.key not in _KEYS:
                raise InvalidModel(
                    f"{where}: external data has the key {entry.key[:80]!r}; allowed are {', '.join(_KEYS)}"
                )
            if entry.key in given:
                raise InvalidModel(f"{where}: external data gives {entry.key!r} twice")
            given[entry.key] = entry.value
        if not given.get("location"):
            raise InvalidModel(f"{where}: external data names no file")
        return given

    def _file(self, where: str, location: str) -> bytes:
        shown = repr(location if len(location) <= 120 else location[:120] + "...")
        if "_ORT_MEM_ADDR_" in location:
            raise InvalidModel(
                f"{where} refers to {shown}, an address in the memory of a process; save the model to a file"
            )
        if location.startswith("/") or location[1:2] == ":":
            raise InvalidModel(
                f"{where} refers to external data at the absolute path {shown}; it must be a relative name"
            )
        if "\\" in location or not location.isprintable():
            raise InvalidModel(
                f"{where} refers to external data at {shown}; backslashes and control characters are refused"
            )
        name = PurePosixPath(location)
        if ".." in name.parts:
            raise InvalidModel(f"{where} refers to external data at {shown}; '..' is not allowed in it")
        if self._came_alone:
            raise InvalidModel(
                f"the model keeps {where} in another file, {shown}, which did not come with it; "
                "send a zip or tar.gz that holds the .onnx file and its data files"
            )
        path = str(self._folder / name)
        if path not in self._files:
            close = difflib.get_close_matches(path, self._files, n=1, cutoff=0.5)
            raise InvalidModel(
                f"{where} refers to external data at {shown}, which is not in the archive"
                + (f"; it holds {close[0]!r}" if close else "")
            )
        return self._files[path]


def densify(where: str, sparse: SparseTensorProto, into: TensorProto) -> None:
    """Write a sparse tensor out in full: one form for every runtime and pass. Its parts are checked already."""
    import numpy as np
    from onnx import numpy_helper

    count = element_count(where, sparse.dims)
    if sparse.values.data_type not in BITS or count * BITS[sparse.values.data_type] > MOST_DENSE_BYTES * 8:
        raise InvalidModel(f"{where} has the shape {_shape(sparse.dims)}: too large to be written out in full")
    values, indices = numpy_helper.to_array(sparse.values).ravel(), numpy_helper.to_array(sparse.indices)
    dims = tuple(sparse.dims)
    flat = (
        indices if indices.ndim == 1 else indices @ np.array([math.prod(dims[axis + 1 :]) for axis in range(len(dims))])
    )
    if flat.shape != values.shape or (flat.size and (indices.min() < 0 or flat.max() >= count)):
        raise InvalidModel(f"{where} has indices outside its shape {_shape(dims)}")
    dense = np.zeros(count, values.dtype)
    dense[flat] = values
    into.CopyFrom(numpy_helper.from_array(dense.reshape(dims), sparse.values.name))


def _payload(kind: int, count: int) -> tuple[str, int]:
    """Where a tensor without raw bytes keeps its values, and how many there must be (onnx.proto, TensorProto)."""
    field = _FIELDS.get(kind, _OTHER_FIELD)
    if kind in (14, 15):  # complex numbers lie as pairs
        return field, 2 * count
    bits = BITS.get(kind, 8)
    return field, math.ceil(count * bits / 8) if bits < 8 else count


def _number(where: str, key: str, text: str) -> int:
    if not _DECIMAL.match(text):
        raise InvalidModel(f"{where}: the {key} of its external data is {text[:40]!r}; it must be a number of bytes")
    return int(text)


def _shape(dims: object) -> str:
    return "x".join(str(size) for size in dims) or "scalar"  # type: ignore[attr-defined]

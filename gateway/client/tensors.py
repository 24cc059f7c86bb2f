"""numpy arrays as V2 binary tensors and back (PROTOCOL: binary tensor extension)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from model_store.datatypes import numpy_dtype, v2_name

LENGTH_HEADER = "inference-header-content-length"


def encode(
    inputs: Mapping[str, Any], outputs: Sequence[str] | None, parameters: Mapping[str, Any], request_id: str | None
) -> tuple[bytes, int]:
    """The body of an infer request and the length of its JSON head. Values may be anything numpy takes as an array."""
    heads, blobs = [], []
    for name, value in inputs.items():
        array = np.asarray(value)
        try:
            datatype = v2_name(array.dtype)
        except KeyError:
            raise TypeError(f"input {name!r} has dtype {array.dtype}, which no V2 datatype carries") from None
        data = _text(array) if datatype == "BYTES" else _plain(array, datatype)
        heads.append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": datatype,
                "parameters": {"binary_data_size": len(data)},
            }
        )
        blobs.append(data)
    request: dict[str, Any] = {"inputs": heads, "parameters": {"binary_data_output": True, **parameters}}
    if outputs is not None:
        request["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    if request_id is not None:
        request["id"] = request_id
    head = orjson.dumps(request)
    return b"".join([head, *blobs]), len(head)


def decode(body: bytes, head_length: str | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON head of an answer and its outputs by name; arrays are read-only views of `body`."""
    length = len(body) if head_length is None else int(head_length)
    head: dict[str, Any] = orjson.loads(body[:length])
    outputs: dict[str, np.ndarray] = {}
    offset = length
    for output in head["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            values = np.array(output["data"], dtype=numpy_dtype(output["datatype"]))
            outputs[output["name"]] = values.reshape(output["shape"])
            continue
        data = memoryview(body)[offset : offset + size]
        offset += size
        if output["datatype"] == "BYTES":
            array = np.array(_split(data), dtype=object)
        else:
            array = np.frombuffer(data, dtype=numpy_dtype(output["datatype"]))
        outputs[output["name"]] = array.reshape(output["shape"])
    return head, outputs


def _plain(array: np.ndarray, datatype: str) -> bytes:
    return np.ascontiguousarray(array, dtype=numpy_dtype(datatype)).tobytes()


def _text(array: np.ndarray) -> bytes:
    parts = []
    for item in array.ravel().tolist():
        data = item if isinstance(item, bytes) else str(item).encode()
        parts += [struct.pack("<I", len(data)), data]
    return b"".join(parts)


def _split(data: memoryview) -> list[bytes]:
    items, offset = [], 0
    while offset < len(data):
        (size,) = struct.unpack_from("<I", data, offset)
        items.append(bytes(data[offset + 4 : offset + 4 + size]))
        offset += 4 + size
    return items

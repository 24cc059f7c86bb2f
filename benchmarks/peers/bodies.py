"""How one row travels to each server and back: V2 binary, else the quickest form which that server documents.

A packed row is the raw bytes of every tensor in the model's own order (servers/onnx_models.py reads the same).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.client.tensors import LENGTH_HEADER, decode, encode

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Body:
    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Form:
    """`write`: inputs to a request. `read`: the answer's body, its headers and the model's outputs (name, datatype,
    shape of a row, as in the manifest) to tensors."""

    title: str
    write: Callable[[Tensors], Body]
    read: Callable[[bytes, Mapping[str, str], list[dict[str, Any]]], dict[str, np.ndarray]]


def _v2(row: Tensors) -> Body:
    content, head = encode(row, None, {}, None)
    return Body(content, {"content-type": "application/octet-stream", LENGTH_HEADER: str(head)})


def _from_v2(content: bytes, headers: Mapping[str, str], outputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return decode(content, headers.get(LENGTH_HEADER))[1]


def packed(row: Tensors) -> bytes:
    return b"".join(np.ascontiguousarray(value).tobytes() for value in row.values())


def unpacked(content: bytes, outputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    found, offset = {}, 0
    for output in outputs:
        dtype, count = np.dtype(output["dtype"]), int(np.prod(output["row"]))
        found[output["name"]] = np.frombuffer(content, dtype, count, offset).reshape(1, *output["row"])
        offset += count * dtype.itemsize
    if offset != len(content):
        raise ValueError(f"{len(content)} bytes where one row of the outputs takes {offset}")
    return found


def _json(content: Any) -> Body:
    return Body(json.dumps(content).encode(), {"content-type": "application/json"})


def _text(row: Tensors) -> str:
    return base64.b64encode(packed(row)).decode()


def _mlserver(row: Tensors) -> Body:
    tensor = {
        "name": "packed", "shape": [1], "datatype": "BYTES", "data": [_text(row)],
        "parameters": {"content_type": "base64"},
    }  # fmt: skip
    return _json({"inputs": [tensor]})


FORMS = {
    "v2-binary": Form("V2 binary", _v2, _from_v2),
    "raw": Form(
        "raw bytes",
        lambda row: Body(packed(row), {"content-type": "application/octet-stream"}),
        lambda content, _, outputs: unpacked(content, outputs),
    ),
    "bentoml": Form(
        "JSON, base64",
        lambda row: _json({"rows": [_text(row)]}),
        lambda content, _, outputs: unpacked(base64.b64decode(json.loads(content)[0]), outputs),
    ),
    "mlserver": Form(
        "V2 JSON, base64",
        _mlserver,
        lambda content, _, outputs: unpacked(base64.b64decode(json.loads(content)["outputs"][0]["data"][0]), outputs),
    ),
}

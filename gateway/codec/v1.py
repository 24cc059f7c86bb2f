"""V1 `:predict`: `{"instances": [...]}` row by row, or `{"inputs": ...}` column by column -> `{"predictions": [...]}`.

Rows are bare values when the model has one input, else objects by input name; types come from the signature. Bytes
that are no text travel as `{"b64": "..."}`. Predictions are rows again (objects when there are several outputs);
outputs that have no row of their own per instance (a scalar, say) are given whole.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import orjson

from gateway.codec.long_arrays import LEAST_BYTES, cut
from gateway.codec.values import HALF, join_texts, long_tensor, numbers, split_texts, to_json
from gateway.errors import BadRequest
from gateway.serve import Result
from gateway.tensors import Tensor
from model_store.entities import Signature, TensorSpec


class Body(msgspec.Struct, frozen=True):
    instances: list[Any] | None = None
    inputs: Any = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class Request(msgspec.Struct, frozen=True):
    inputs: list[tuple[str, Tensor]]
    by_row: bool
    variant: str | None


_decoder = msgspec.json.Decoder(Body)


def decode(body: bytes, signature: Signature) -> Request:
    """Raises BadRequest that says what the body should have been."""
    if len(body) >= LEAST_BYTES and (request := _read(body, signature)) is not None:
        return request
    return _request(body, signature, {})


def _read(body: bytes, signature: Signature) -> Request | None:
    """A body whose rows or column are one long array of numbers; None: it is anything else."""
    found = cut(body, b'"instances"') or cut(body, b'"inputs"')
    if found is None or len(found.arrays) != 1 or len(signature.inputs) != 1:
        return None
    (spec,) = signature.inputs
    try:
        parsed = _parsed(found.text)
    except BadRequest:
        return None
    if found.at(parsed.instances if parsed.instances is not None else parsed.inputs) is None:
        return None
    tensor = long_tensor(spec.datatype, None, found.arrays[0])
    return None if tensor is None else _request(found.text, signature, {spec.name: tensor})


def _parsed(body: bytes) -> Body:
    try:
        parsed = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise BadRequest(f"failed to parse the request JSON: {exc}") from None
    if (parsed.instances is None) == (parsed.inputs is msgspec.UNSET):
        raise BadRequest('the body must hold exactly one of "instances" (rows) and "inputs" (columns)')
    return parsed


def _request(body: bytes, signature: Signature, read: Mapping[str, Tensor]) -> Request:
    """`read`: inputs that there are already."""
    parsed = _parsed(body)
    by_row = parsed.instances is not None
    columns = _columns_of_rows(parsed.instances or [], signature) if by_row else _columns(parsed.inputs, signature)
    inputs = [(spec.name, read.get(spec.name) or _tensor(spec, columns[spec.name])) for spec in signature.inputs]
    variant = (parsed.parameters or {}).get("variant")
    if variant is not None and not isinstance(variant, str):
        raise BadRequest("parameter 'variant' must be the id of a variant")
    return Request(inputs, by_row, variant)


def encode(request: Request, result: Result) -> bytes:
    """The body of the answer."""
    specs = result.route.signature.outputs
    outputs = {spec.name: _json(spec, tensor) for spec, tensor in zip(specs, result.answer.outputs, strict=True)}
    rows = {tensor.shape[0] if tensor.shape else None for tensor in result.answer.outputs}
    if len(outputs) == 1:
        return b'{"predictions":%b}' % next(iter(outputs.values()))
    if request.by_row and len(rows) == 1 and None not in rows:
        columns = {name: json.loads(text) for name, text in outputs.items()}
        named = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return json.dumps({"predictions": named}, ensure_ascii=False, separators=(",", ":")).encode()
    return orjson.dumps({"predictions": {name: orjson.Fragment(text) for name, text in outputs.items()}})


def _columns_of_rows(instances: list[Any], signature: Signature) -> dict[str, list[Any]]:
    names = [spec.name for spec in signature.inputs]
    if not instances:
        raise BadRequest('"instances" must hold at least one row')
    if all(isinstance(row, dict) and "b64" not in row for row in instances):
        for row in instances:
            if row.keys() != set(names):
                raise BadRequest(f"an instance has the inputs {sorted(row)}; the model has {names}")
        return {name: [row[name] for row in instances] for name in names}
    if len(names) != 1:
        raise BadRequest(f"the model has the inputs {names}: every instance must be an object with all of them")
    return {names[0]: instances}


def _columns(inputs: Any, signature: Signature) -> dict[str, Any]:
    names = [spec.name for spec in signature.inputs]
    if isinstance(inputs, dict) and "b64" not in inputs:
        if inputs.keys() != set(names):
            raise BadRequest(f'"inputs" has {sorted(inputs)}; the model has {names}')
        return inputs
    if len(names) != 1:
        raise BadRequest(f'the model has the inputs {names}: "inputs" must be an object with all of them')
    return {names[0]: inputs}


def _tensor(spec: TensorSpec, data: Any) -> Tensor:
    if spec.datatype == "BYTES":
        return _texts(spec, data)
    if spec.datatype in HALF:
        raise BadRequest(f"input '{spec.name}' is {spec.datatype}, which JSON does not carry: use V2 with binary data")
    array = numbers(spec.name, spec.datatype, data)
    return Tensor(spec.datatype, array.shape, array.tobytes())


def _texts(spec: TensorSpec, data: Any) -> Tensor:
    """Nested lists of strings; the depth of the nesting is the shape."""
    shape, level = [], data
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    flat: list[bytes] = []
    _collect(spec.name, data, flat)
    if len(flat) != int(np.prod(shape)):
        raise BadRequest(f"input '{spec.name}': the nested lists are not of one shape")
    return Tensor("BYTES", tuple(shape), join_texts(flat))


def _collect(name: str, data: Any, into: list[bytes]) -> None:
    if isinstance(data, list):
        for item in data:
            _collect(name, item, into)
    elif isinstance(data, str):
        into.append(data.encode("utf-8", "surrogatepass"))
    elif isinstance(data, dict) and data.keys() == {"b64"} and isinstance(data["b64"], str):
        try:
            into.append(base64.b64decode(data["b64"], validate=True))
        except binascii.Error as exc:
            raise BadRequest(f"input '{name}': not base64: {exc}") from None
    else:
        raise BadRequest(f'input \'{name}\' takes strings, or {{"b64": "..."}} for bytes')


def _json(spec: TensorSpec, tensor: Tensor) -> bytes:
    if tensor.datatype != "BYTES":
        return to_json(spec.name, tensor, flat=False)
    array = np.empty(len(texts := split_texts(tensor)), dtype=object)
    array[:] = [_text(text) for text in texts]
    return orjson.dumps(array.reshape(tensor.shape).tolist())


def _text(text: bytes) -> str | dict[str, str]:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(text).decode()}

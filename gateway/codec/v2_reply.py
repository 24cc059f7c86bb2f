"""The body of a V2 `infer` answer: JSON, and behind it the binary outputs (PROTOCOL sections 2 and 3)."""

from __future__ import annotations

from functools import lru_cache

import msgspec
import orjson

from gateway.codec.v2_request import Request
from gateway.codec.values import refuse_half, to_json
from gateway.errors import BadRequest
from gateway.ranking import VersionRoute
from gateway.serve import Result

JOIN_BELOW = 1 << 16
"""Bodies up to this size leave as one piece: one write is worth a copy. Larger tensors are sent as they are."""


class Body(msgspec.Struct, frozen=True, gc=False):
    """An encoded answer. `json_bytes` is the length of the JSON when binary tensors follow it, else None."""

    chunks: list[bytes | memoryview]
    nbytes: int
    json_bytes: int | None


def encode(request: Request, result: Result) -> Body:
    """Raises BadRequest for BYTES that JSON cannot carry; `check_outputs` has refused everything else."""
    route, answer = result.route, result.answer
    specs = route.signature.outputs
    if request.outputs is None:
        wanted = [(nth, request.binary) for nth in range(len(specs))]
    else:
        wanted = [(_nth(route, name), binary) for name, binary in request.outputs]
    heads, tensors = [], []
    for nth, binary in wanted:
        name, tensor = specs[nth].name, answer.outputs[nth]
        if binary:
            heads.append(_binary_head(name, tensor.datatype, tensor.shape, len(tensor.data)))
            if len(tensor.data):
                tensors.append(tensor.data)
        else:
            heads.append(_json_head(name, tensor.datatype, tensor.shape) + to_json(name, tensor) + b"}")
    opening = b'{"id":%b,' % orjson.dumps(request.id) if request.id else b"{"
    text = b"".join((opening, _model_head(route.name, route.version, answer.variant), b",".join(heads), b"]}"))
    nbytes = len(text) + sum(map(len, tensors))
    if not tensors:
        return Body([text], nbytes, None)
    if nbytes < JOIN_BELOW:
        return Body([b"".join((text, *tensors))], nbytes, len(text))
    return Body([text, *tensors], nbytes, len(text))


def check_outputs(request: Request, route: VersionRoute) -> None:
    """Refuse outputs nobody has, and those JSON cannot carry, before anything is run. Raises BadRequest."""
    if request.outputs is None and request.binary:
        return
    specs = {spec.name: spec for spec in route.signature.outputs}
    asked = request.outputs or [(name, request.binary) for name in specs]
    for name, binary in asked:
        if name not in specs:
            raise BadRequest(f"unexpected inference output '{name}' for model '{route.name}'")
        if not binary:
            refuse_half(name, specs[name].datatype)


def _nth(route: VersionRoute, name: str) -> int:
    return next(nth for nth, spec in enumerate(route.signature.outputs) if spec.name == name)


@lru_cache(4096)
def _model_head(name: str, version: str, variant: str) -> bytes:
    """Everything of the answer that its model and variant decide, up to the outputs."""
    head = orjson.dumps({"model_name": name, "model_version": version, "parameters": {"variant": variant}})
    return head[1:-1] + b',"outputs":['


@lru_cache(4096)
def _binary_head(name: str, datatype: str, shape: tuple[int, ...], nbytes: int) -> bytes:
    head = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": nbytes}}
    return orjson.dumps(head)


@lru_cache(4096)
def _json_head(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    return orjson.dumps({"name": name, "datatype": datatype, "shape": shape})[:-1] + b',"data":'

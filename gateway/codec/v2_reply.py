"""The body of a V2 `infer` answer: JSON, and behind it the binary outputs (PROTOCOL sections 2 and 3).

Outputs may also go to shared memory, or be answered as their largest values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import orjson

from gateway.batching.batch import Answer
from gateway.classification import classify, refuse_unclassifiable
from gateway.codec.v2_header import Asked, Place
from gateway.codec.v2_request import Request
from gateway.codec.values import refuse_half, to_json
from gateway.errors import BadRequest
from gateway.routing.ranking import VersionRoute
from gateway.serve import Result
from gateway.shared_memory import Regions
from gateway.tensors import Tensor, wrong
from model_store.entities import TensorSpec

JOIN_BELOW = 1 << 16
"""Bodies up to this size leave as one piece: one write is worth a copy. Larger tensors are sent as they are."""


class Body(msgspec.Struct, frozen=True, gc=False):
    """An encoded answer. `json_bytes` is the length of the JSON when binary tensors follow it, else None."""

    chunks: list[bytes | memoryview]
    nbytes: int
    json_bytes: int | None


def encode(request: Request, result: Result, regions: Regions) -> Body:
    """Raises BadRequest for BYTES that JSON cannot carry, and for shared memory that is too small or gone;
    `check_outputs` has refused everything else."""
    route, answer = result.route, result.answer
    specs = route.signature.outputs
    if request.outputs is None:
        wanted: list[tuple[int, bool, int, Place | None]] = [
            (nth, request.binary, 0, None) for nth in range(len(specs))
        ]
    else:
        wanted = [(_nth(specs, asked.name), asked.binary, asked.classes, asked.place) for asked in request.outputs]
    opening = b'{"id":%b,' % orjson.dumps(request.id) if request.id else b"{"
    parts: list[bytes] = [opening, _model_head(route.name, route.version, answer.variant)]
    tensors, separator = [], b""
    for nth, binary, classes, place in wanted:
        name, tensor = specs[nth].name, answer.outputs[nth]
        if classes:
            tensor = classify(tensor, classes, route.max_batch_size > 0)
        parts.append(separator)
        separator = b","
        if place is not None:
            parts.append(_placed(name, tensor, place, regions))
        elif binary:
            parts.append(_binary_head(name, tensor.datatype, tensor.shape, len(tensor.data)))
            if len(tensor.data):
                tensors.append(tensor.data)
        else:
            parts += (_json_head(name, tensor.datatype, tensor.shape), to_json(name, tensor), b"}")
    text = b"".join((*parts, b"]}"))  # long ones are copied once
    nbytes = len(text) + sum(map(len, tensors))
    if not tensors:
        return Body([text], nbytes, None)
    if nbytes < JOIN_BELOW:
        return Body([b"".join((text, *tensors))], nbytes, len(text))
    return Body([text, *tensors], nbytes, len(text))


def binary_text(route: VersionRoute, answer: Answer, wanted: Sequence[int]) -> bytes:
    """The JSON of an answer without id whose `wanted` outputs all follow it as binary."""
    specs, heads = route.signature.outputs, []
    for nth in wanted:
        tensor = answer.outputs[nth]
        heads.append(_binary_head(specs[nth].name, tensor.datatype, tensor.shape, len(tensor.data)))
    return b"".join((b"{", _model_head(route.name, route.version, answer.variant), b",".join(heads), b"]}"))


def check_outputs(request: Request, route: VersionRoute, regions: Regions) -> None:
    """Refuse outputs nobody has, and those that cannot be given as asked for, before anything is run.

    Raises BadRequest, and NotFound for regions nobody registered.
    """
    if request.outputs is None and request.binary:
        return
    specs = {spec.name: spec for spec in route.signature.outputs}
    for name, binary, classes, place in request.outputs or [Asked(name, request.binary) for name in specs]:
        if name not in specs:
            raise wrong(request.id, f"unexpected inference output '{name}' for model '{route.name}'")
        if classes:
            refuse_unclassifiable(name, specs[name].datatype, classes)
        elif place is not None:
            regions.check(*place)
        elif not binary:
            refuse_half(name, specs[name].datatype)


def _placed(name: str, tensor: Tensor, place: Place, regions: Regions) -> bytes:
    """Write an output to shared memory; what the answer says of it. Raises BadRequest, NotFound."""
    nbytes = len(tensor.data)
    if nbytes > place.nbytes:
        raise BadRequest(
            f"shared memory size specified with the request for output '{name}' ({place.nbytes} bytes) should be at "
            f"least {nbytes} bytes to hold the results"
        )
    if nbytes:
        regions.write(place.region, place.offset, tensor.data)
    # No parameters, as Triton: its C++ client takes any for those of a binary output and looks for the size.
    return orjson.dumps({"name": name, "datatype": tensor.datatype, "shape": tensor.shape})


def _nth(specs: Sequence[TensorSpec], name: str) -> int:
    nth = 0
    while specs[nth].name != name:
        nth += 1
    return nth


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

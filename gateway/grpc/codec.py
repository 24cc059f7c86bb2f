"""A ModelInferRequest to tensors, and an answer to a ModelInferResponse (PROTOCOL section 4).

`raw_input_contents` are taken in input order, inputs in shared memory are skipped; without any raw entry every input
carries its typed `contents`. Answers always use `raw_output_contents`. Texts of refusals are those of Triton's
grpc_utils.cc, because clients test for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import msgspec
import numpy as np

from gateway.classification import classify, refuse_unclassifiable
from gateway.codec.v2_header import Place
from gateway.codec.values import join_texts
from gateway.errors import BadRequest
from gateway.grpc import wire
from gateway.grpc.messages import DecodeError, message
from gateway.grpc.parameters import Options, options_of, place_of, values_of
from gateway.routing.ranking import VersionRoute
from gateway.serve import Result
from gateway.shared_memory import Regions
from gateway.tensors import Tensor, wrong
from model_store.datatypes import NUMPY

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_HOLDS = {
    "bool_contents": "BOOL",
    "int_contents": "INT32",
    "int64_contents": "INT64",
    "uint_contents": "UINT32",
    "uint64_contents": "UINT64",
    "fp32_contents": "FP32",
    "fp64_contents": "FP64",
    "bytes_contents": "BYTES",
}
_KNOWN_BELOW = 2048
"""Heads up to this many bytes are remembered."""

_ModelInferRequest, _ModelInferResponse = message("ModelInferRequest"), message("ModelInferResponse")


class Input(msgspec.Struct, frozen=True):
    """One input. `typed`: its data was in the head; `place`: it is in shared memory; neither: the next raw entry."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    typed: Tensor | None
    place: Place | None


class Output(msgspec.Struct, frozen=True):
    name: str
    place: Place | None
    classes: int


class Plan(msgspec.Struct, frozen=True):
    """What the head of a request says, checked: everything but its id and its raw tensors."""

    model: str
    version: str | None
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    options: Options


class Request(msgspec.Struct, frozen=True):
    plan: Plan
    id: str
    raw: list[memoryview]


def decode(data: bytes) -> Request:
    """Everything of a request that can be known without its model. Raises BadRequest."""
    try:
        head, request_id, raw = wire.cut(data)
        plan = (_known_plan if len(head) <= _KNOWN_BELOW else _plan)(head, bool(raw))
        return Request(plan, request_id.decode(), raw)
    except (DecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"failed to parse the ModelInferRequest: {exc}") from None


def tensors(request: Request, regions: Regions) -> list[tuple[str, Tensor]]:
    """The inputs, by name. Raises BadRequest, NotFound (a region nobody registered)."""
    plan, raw = request.plan, request.raw
    inputs, nth = [], 0
    for given in plan.inputs:
        if given.typed is not None:
            tensor = given.typed
        elif given.place is not None:
            place = given.place
            tensor = Tensor(given.datatype, given.shape, regions.read(*place))
        else:
            if nth >= len(raw):
                raise _missing(given.name, plan.model)
            tensor = Tensor(given.datatype, given.shape, raw[nth])
            nth += 1
        inputs.append((given.name, tensor))
    if nth != len(raw):
        raise BadRequest(
            f"unexpected additional input data for model '{plan.model}': {len(raw)} raw_input_contents for {nth} inputs"
        )
    return inputs


def check_outputs(request: Request, route: VersionRoute, regions: Regions) -> None:
    """Refuse outputs nobody has, or that cannot be given as asked for, before anything is run.

    Raises BadRequest, and NotFound for regions nobody registered.
    """
    if not request.plan.outputs:
        return
    specs = {spec.name: spec for spec in route.signature.outputs}
    for output in request.plan.outputs:
        if output.name not in specs:
            raise wrong(request.id, f"unexpected inference output '{output.name}' for model '{route.name}'")
        if output.classes:
            refuse_unclassifiable(output.name, specs[output.name].datatype, output.classes)
        elif output.place is not None:
            regions.check(*output.place)


def encode(request: Request, result: Result, regions: Regions, final: bool = False) -> bytes:
    """A serialized ModelInferResponse. `final`: it answers in a stream, and is the last answer to its request."""
    route, answer = result.route, result.answer
    heads: list[tuple[str, str, tuple[int, ...]]] = []
    datas: list[bytes | memoryview] = []
    if not request.plan.outputs:
        for spec, tensor in zip(route.signature.outputs, answer.outputs, strict=True):
            heads.append((spec.name, tensor.datatype, tensor.shape))
            datas.append(tensor.data)
    else:
        by_name = {spec.name: t for spec, t in zip(route.signature.outputs, answer.outputs, strict=True)}
        for output in request.plan.outputs:
            tensor = by_name[output.name]
            if output.classes:
                tensor = classify(tensor, output.classes, route.max_batch_size > 0)
            heads.append((output.name, tensor.datatype, tensor.shape))
            if output.place is None:
                datas.append(tensor.data)
            else:
                datas.append(b"")
                _share(output, tensor, regions)
    head = _head(route.name, route.version, answer.variant, tuple(heads), final)
    return wire.joined(head, request.id.encode(), datas)


def head(route: VersionRoute, variant: str, outputs: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """Everything of an answer without id but its tensors. `outputs`: name, datatype, shape."""
    return _head(route.name, route.version, variant, outputs, False)


def _share(output: Output, tensor: Tensor, regions: Regions) -> None:
    place = output.place
    assert place is not None
    if len(tensor.data) > place.nbytes:
        raise BadRequest(
            f"shared memory size specified with the request for output '{output.name}' ({place.nbytes} bytes) should "
            f"be at least {len(tensor.data)} bytes to hold the results"
        )
    regions.write(place.region, place.offset, tensor.data)


def _plan(head: bytes, has_raw: bool) -> Plan:
    request = _ModelInferRequest.FromString(head)
    model = request.model_name
    return Plan(
        model,
        request.model_version or None,
        tuple(_input(given, has_raw, model) for given in request.inputs),
        tuple(_output(asked) for asked in request.outputs),
        options_of(values_of(request.parameters)),
    )


_known_plan = lru_cache(256)(_plan)


def _input(given: Any, has_raw: bool, model: str) -> Input:
    name, datatype, shape = given.name, given.datatype, tuple(given.shape)
    place = place_of(values_of(given.parameters), f"input '{name}'")
    has_contents = given.HasField("contents")
    if has_contents and has_raw:
        raise BadRequest(
            f"contents field must not be specified when using raw_input_contents for '{name}' for model '{model}'"
        )
    typed = None
    if place is not None:
        if has_contents:
            raise BadRequest(f"unexpected 'content' provided when using shared memory for input '{name}'")
    elif not has_raw:
        if not has_contents and prod(shape):
            raise _missing(name, model)
        typed = Tensor(datatype, shape, _typed(name, datatype, given.contents, model))
    return Input(name, datatype, shape, typed, place)


def _missing(name: str, model: str) -> BadRequest:
    return BadRequest(f"unable to find data for input tensor '{name}' for model '{model}' in request.")


def _typed(name: str, datatype: str, contents: Any, model: str) -> bytes:
    """Typed contents as the bytes of their tensor. Raises BadRequest when another field than the type's is filled."""
    wanted = _CONTENTS.get(datatype)
    for field, holds in _HOLDS.items():
        if field != wanted and len(getattr(contents, field)):
            raise BadRequest(
                f"unexpected explicit tensor data for input tensor '{name}' for model '{model}' of type '{holds}', "
                f"expected datatype '{datatype}'"
            )
    if wanted is None:
        return b""
    values: Sequence[Any] = getattr(contents, wanted)
    if datatype == "BYTES":
        return join_texts(list(values))
    dtype = NUMPY[datatype]
    array = np.array(values, dtype=NUMPY[_HOLDS[wanted]])
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise BadRequest(f"a value of input tensor '{name}' for model '{model}' is out of the range of {datatype}")
    return array.astype(dtype, copy=False).tobytes()


def _output(asked: Any) -> Output:
    values = values_of(asked.parameters)
    place = place_of(values, f"output '{asked.name}'")
    classes = values.get("classification", 0)
    if not isinstance(classes, int) or classes < 0:
        raise BadRequest(f"output '{asked.name}': 'classification' must be a whole number of classes")
    if classes and place is not None:
        raise BadRequest("shared memory can't be set with 'classification'")
    return Output(asked.name, place, classes)


@lru_cache(4096)
def _head(
    name: str, version: str, variant: str, outputs: tuple[tuple[str, str, tuple[int, ...]], ...], final: bool
) -> bytes:
    """Everything of an answer but its id and its tensors."""
    response = _ModelInferResponse(model_name=name, model_version=version)
    response.parameters["variant"].string_param = variant
    if final:
        response.parameters["triton_final_response"].bool_param = True
    for output, datatype, shape in outputs:
        response.outputs.add(name=output, datatype=datatype, shape=shape)
    head: bytes = response.SerializeToString(deterministic=True)
    return head

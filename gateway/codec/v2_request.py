"""The body of a V2 `infer` request: a JSON header, then the binary tensors it announces (PROTOCOL sections 2 and 3).

A tensor may also lie in the header, or in a shared memory region that the header names. A body without any header is
v2_raw.py's.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.codec.long_arrays import LEAST_BYTES, Cut, cut
from gateway.codec.v2_header import Asked, FlatInput, Input, Plan, place_of, plan_of
from gateway.codec.values import long_tensor, packed_tensor, to_tensor
from gateway.errors import BadRequest
from gateway.shared_memory import Regions
from gateway.tensors import Tensor


class Request(msgspec.Struct, frozen=True, gc=False):
    """A decoded request. `outputs`: in the order asked for; None: all outputs, all alike."""

    id: str
    inputs: list[tuple[str, Tensor]]
    outputs: tuple[Asked, ...] | None
    binary: bool
    timeout_s: float | None = None
    variant: str | None = None
    priority: int = 0


def decode(body: bytes, header_length: int | None, model: str, regions: Regions) -> Request:
    """`header_length`: the value of `Inference-Header-Content-Length`, None when absent.

    Raises BadRequest, and NotFound for regions nobody registered.
    """
    at = len(body) if header_length is None else header_length
    if at >= LEAST_BYTES and (found := cut(body[:at], b'"data"')) is not None:
        read = _read(found)
        if read is not None:
            return _request(*read, body, at, model, regions)
    return _request(plan_of(body, at), {}, body, at, model, regions)


def check_header_length(value: bytes, body_bytes: int) -> int:
    """The number in `Inference-Header-Content-Length`; 0: the whole body is one tensor. Raises BadRequest."""
    size = int(value) if value.isdigit() and len(value) < 20 else -1  # Python reads no number without end
    if not 0 <= size <= body_bytes:
        text = value.decode("latin-1")[:40]
        raise BadRequest(f"inference header size should be in range (0, {body_bytes}), got: {text}")
    return size


def _read(found: Cut) -> tuple[Plan, dict[int, Tensor]] | None:
    """What a header says whose long arrays were cut out, and the inputs that those are, by their places.

    None: something about it is not plain. Then the whole header is read for what it is, or for what is wrong with it.
    """
    try:
        plan = plan_of(found.text, len(found.text))
    except BadRequest:
        return None
    tensors = {}
    for place, (given, _) in enumerate(plan.inputs):
        nth = found.at(given.data)
        if nth is not None:
            tensor = long_tensor(given.datatype, given.shape, found.arrays[nth])
            if tensor is None:
                return None
            tensors[place] = tensor
    return (plan, tensors) if len(tensors) == len(found.arrays) else None


def _request(plan: Plan, read: Mapping[int, Tensor], body: bytes, at: int, model: str, regions: Regions) -> Request:
    """`read`: inputs that there are already, by their places. The header ends at `at`."""
    data = memoryview(body)
    inputs = []
    for place, (given, size) in enumerate(plan.inputs):
        if size is None:
            inputs.append((given.name, read.get(place) or _held(given, regions)))
            continue
        end = at + size
        if end > len(body):
            raise BadRequest(
                f"unexpected size for input '{given.name}', expecting {end - len(body)} additional bytes "
                f"for model '{model}'"
            )
        inputs.append((given.name, Tensor(given.datatype, given.shape, data[at:end])))
        at = end
    if at != len(body):
        raise BadRequest(f"unexpected additional input data for model '{model}': {len(body) - at} bytes")
    return Request(plan.id, inputs, plan.outputs, plan.binary, plan.timeout_s, plan.variant, plan.priority)


def _held(given: Input, regions: Regions) -> Tensor:
    """An input whose data is in the header or in shared memory."""
    parameters = given.parameters
    if parameters is None or parameters.shared_memory_region is None:
        if type(given) is FlatInput:
            return packed_tensor(given.name, given.datatype, given.shape, given.data)
        return to_tensor(given.name, given.datatype, given.shape, given.data)
    place = place_of(f"input '{given.name}'", parameters)
    return Tensor(given.datatype, given.shape, regions.read(*place))

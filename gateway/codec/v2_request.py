"""The body of a V2 `infer` request: a JSON header, then the binary tensors it announces (PROTOCOL sections 2 and 3).

Where Triton has words for a refusal, they are used: clients test for them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import msgspec

from gateway.codec.values import to_tensor
from gateway.errors import BadRequest, Unsupported
from gateway.tensors import Tensor
from gateway.wire import DATATYPES, MAX_RANK

_ONE_OF = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'. But "
)
_DATATYPES = frozenset(DATATYPES)
_KNOWN_BELOW = 2048
"""Headers up to this many bytes are remembered."""


class InputParameters(msgspec.Struct, frozen=True, gc=False):
    binary_data_size: int | None = None
    shared_memory_region: str | None = None


class Input(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: InputParameters | None = None
    data: Any = msgspec.UNSET


class OutputParameters(msgspec.Struct, frozen=True, gc=False):
    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class Output(msgspec.Struct, frozen=True):
    name: str
    parameters: OutputParameters | None = None


class Header(msgspec.Struct, frozen=True):
    inputs: tuple[Input, ...]
    id: str = ""
    outputs: tuple[Output, ...] | None = None
    parameters: dict[str, Any] | None = None


class Request(msgspec.Struct, frozen=True, gc=False):
    """A decoded request. `outputs`: (name, binary?) in the order asked for; None: all outputs, all alike."""

    id: str
    inputs: list[tuple[str, Tensor]]
    outputs: tuple[tuple[str, bool], ...] | None
    binary: bool
    timeout_s: float | None
    variant: str | None


class Plan(msgspec.Struct, frozen=True):
    """What a header says once it was checked: everything of a request but the bytes of its tensors.

    `inputs`: the header's input and its binary size, None when its data is in the header itself.
    """

    id: str
    inputs: tuple[tuple[Input, int | None], ...]
    outputs: tuple[tuple[str, bool], ...] | None
    binary: bool
    timeout_s: float | None
    variant: str | None


_decoder = msgspec.json.Decoder(Header)


def decode(body: bytes, header_length: int | None, model: str) -> Request:
    """`header_length`: the value of `Inference-Header-Content-Length`, None when absent. Raises BadRequest."""
    at = len(body) if header_length is None else header_length
    # A client sends the same header again and again when its tensors lie behind it: then it is read once.
    plan = _known_plan(body[:at]) if at <= _KNOWN_BELOW and at < len(body) else _plan(body[:at])
    data = memoryview(body)
    inputs = []
    for given, size in plan.inputs:
        if size is None:
            inputs.append((given.name, to_tensor(given.name, given.datatype, given.shape, given.data)))
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
    return Request(plan.id, inputs, plan.outputs, plan.binary, plan.timeout_s, plan.variant)


def check_header_length(value: bytes, body_bytes: int) -> int:
    """The number in `Inference-Header-Content-Length`. Raises BadRequest, Unsupported."""
    size = int(value) if value.isdigit() else -1
    if not 0 <= size <= body_bytes:
        text = value.decode("latin-1")[:40]
        raise BadRequest(f"inference header size should be in range (0, {body_bytes}), got: {text}")
    if size == 0 and body_bytes:
        raise Unsupported("raw binary requests (inference header size 0) are not supported; send a JSON header")
    return size


def _header(text: bytes) -> Header:
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as exc:
        raise BadRequest(f"failed to parse the request JSON: {exc}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        if b"NaN" not in text and b"Infinity" not in text:
            raise BadRequest(f"failed to parse the request JSON buffer: {exc}") from None
        return _header_with_literals(text)


def _header_with_literals(text: bytes) -> Header:
    """Python's json writes NaN and Infinity, which JSON has not: only its own reader takes them."""
    try:
        return msgspec.convert(json.loads(text), Header)
    except (ValueError, RecursionError, msgspec.ValidationError) as exc:
        raise BadRequest(f"failed to parse the request JSON: {exc}") from None


def _plan(header: bytes) -> Plan:
    parsed = _header(header)
    binary, timeout_s, variant = _parameters(parsed.parameters)
    inputs = tuple((given, _binary_size(given)) for given in parsed.inputs)
    return Plan(parsed.id, inputs, _outputs(parsed.outputs, binary), binary, timeout_s, variant)


_known_plan = lru_cache(256)(_plan)


def _binary_size(given: Input) -> int | None:
    """Bytes of the input behind the header; None: its data is in the header. Raises for what no input may say."""
    parameters = given.parameters or InputParameters()
    fields = [
        field
        for field, there in (
            ("'data'", given.data is not msgspec.UNSET),
            ("'binary_data_size' in 'parameters'", parameters.binary_data_size is not None),
            ("'shared_memory_region' in 'parameters'", parameters.shared_memory_region is not None),
        )
        if there
    ]
    if not fields:
        raise BadRequest(f"{_ONE_OF}no field was set for input '{given.name}'.")
    if len(fields) > 1:
        raise BadRequest(f"{_ONE_OF}{' and '.join(fields)} were set for input '{given.name}'.")
    if parameters.shared_memory_region is not None:
        raise Unsupported(f"input '{given.name}': shared memory regions are not supported by this server")
    if given.datatype not in _DATATYPES:
        raise _bad_datatype(given)
    if len(given.shape) > MAX_RANK or any(size < 0 for size in given.shape):
        raise BadRequest(
            f"input '{given.name}' has the shape {list(given.shape)[:MAX_RANK]}: "
            f"at most {MAX_RANK} sizes, none of them negative"
        )
    if parameters.binary_data_size is not None and parameters.binary_data_size < 0:
        raise BadRequest(f"input '{given.name}': 'binary_data_size' must not be negative")
    return parameters.binary_data_size


def _bad_datatype(given: Input) -> BadRequest:
    return BadRequest(
        f"invalid datatype '{given.datatype[:40]}' for input '{given.name}'; it must be one of {', '.join(DATATYPES)}"
    )


def _parameters(given: dict[str, Any] | None) -> tuple[bool, float | None, str | None]:
    """(binary_data_output, timeout in seconds, pinned variant). Raises BadRequest."""
    if not given:
        return False, None, None
    for name in given:
        if name == "headers" or name.startswith("triton_"):
            raise BadRequest(f"parameter '{name}' is reserved and cannot be given in a request")
    binary = given.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise BadRequest("parameter 'binary_data_output' must be true or false")
    timeout = given.get("timeout")
    if timeout is not None and (not isinstance(timeout, int) or isinstance(timeout, bool) or timeout < 0):
        raise BadRequest("parameter 'timeout' must be a whole number of microseconds")
    variant = given.get("variant")
    if variant is not None and not isinstance(variant, str):
        raise BadRequest("parameter 'variant' must be the id of a variant")
    return binary, timeout / 1e6 if timeout else None, variant or None


def _outputs(asked: tuple[Output, ...] | None, binary: bool) -> tuple[tuple[str, bool], ...] | None:
    if not asked:
        return None
    wanted = []
    for output in asked:
        parameters = output.parameters or OutputParameters()
        if parameters.shared_memory_region is not None:
            if parameters.classification is not None:
                raise BadRequest("shared memory can't be set with 'classification'")
            raise Unsupported(f"output '{output.name}': shared memory regions are not supported by this server")
        if parameters.classification is not None:
            raise Unsupported(f"output '{output.name}': the classification extension is not supported by this server")
        wanted.append((output.name, binary if parameters.binary_data is None else parameters.binary_data))
    return tuple(wanted)

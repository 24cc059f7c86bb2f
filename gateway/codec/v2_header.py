"""The JSON of a V2 `infer` request, in front of its binary tensors: what it says, checked (PROTOCOL sections 2 and 3).

Where Triton has words for a refusal, they are used: clients test for them.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from gateway.codec.values import PACKED
from gateway.errors import BadRequest
from gateway.running.wire import DATATYPES, MAX_RANK

_ONE_OF = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'. But "
)
_DATATYPES = frozenset(DATATYPES)
_LONG = 1 << 12
_FLOATS = re.compile(rb'"FP(32|64)"')
_KNOWN_BELOW = 2048
"""Headers up to this many bytes are remembered."""


class MemoryParameters(msgspec.Struct, frozen=True, gc=False):
    """Where in shared memory a tensor is, or goes to."""

    shared_memory_region: str | None = None
    shared_memory_offset: int = 0
    shared_memory_byte_size: int | None = None


class InputParameters(MemoryParameters, frozen=True, gc=False):
    binary_data_size: int | None = None


class Input(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: InputParameters | None = None
    data: Any = msgspec.UNSET


class OutputParameters(MemoryParameters, frozen=True, gc=False):
    binary_data: bool | None = None
    classification: int | None = None


class Output(msgspec.Struct, frozen=True):
    name: str
    parameters: OutputParameters | None = None


class Header(msgspec.Struct, frozen=True):
    inputs: tuple[Input, ...]
    id: str = ""
    outputs: tuple[Output, ...] | None = None
    parameters: dict[str, Any] | None = None


class FlatInput(Input, frozen=True):
    """One whose data is a flat list of numbers."""

    data: list[float] | msgspec.UnsetType = msgspec.UNSET


class _FlatHeader(Header, frozen=True):
    inputs: tuple[FlatInput, ...]


class Place(NamedTuple):
    """Bytes of a registered shared memory region."""

    region: str
    offset: int
    nbytes: int


class Asked(NamedTuple):
    """One output asked for: as binary or JSON, as its `classes` largest values (0: as it is), into shared memory."""

    name: str
    binary: bool
    classes: int = 0
    place: Place | None = None


class Plan(msgspec.Struct, frozen=True):
    """What a header says once it was checked: everything of a request but the bytes of its tensors.

    `inputs`: the header's input and its binary size, None when its data is in the header or in shared memory.
    """

    id: str
    inputs: tuple[tuple[Input, int | None], ...]
    outputs: tuple[Asked, ...] | None
    binary: bool
    timeout_s: float | None
    variant: str | None
    priority: int


_decoder = msgspec.json.Decoder(Header)
_flat_decoder = msgspec.json.Decoder(_FlatHeader)


def plan_of(body: bytes, at: int) -> Plan:
    """What the header says, which is the first `at` bytes. Raises BadRequest."""
    # A client sends the same header again and again when its tensors lie elsewhere: then it is read once.
    again = at <= _KNOWN_BELOW and (at < len(body) or b'"data"' not in body)
    return _known_plan(body[:at]) if again else _plan(body[:at])


def _header(text: bytes) -> Header:
    if len(text) > _LONG and _FLOATS.search(text, 0, _LONG) and (flat := _flat_header(text)) is not None:
        return flat
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as exc:
        raise BadRequest(f"failed to parse the request JSON: {exc}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        if b"NaN" not in text and b"Infinity" not in text:
            raise BadRequest(f"failed to parse the request JSON buffer: {exc}") from None
        return _header_with_literals(text)


def _flat_header(text: bytes) -> Header | None:
    """A header whose data are flat lists of floats, which are packed at a third of the cost; None: it is another."""
    try:
        header = _flat_decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    unset = msgspec.UNSET
    return header if all(each.data is unset or each.datatype in PACKED for each in header.inputs) else None


def _header_with_literals(text: bytes) -> Header:
    """Python's json writes NaN and Infinity, which JSON has not: only its own reader takes them."""
    try:
        return msgspec.convert(json.loads(text), Header)
    except (ValueError, RecursionError, msgspec.ValidationError) as exc:
        raise BadRequest(f"failed to parse the request JSON: {exc}") from None


def _plan(header: bytes) -> Plan:
    parsed = _header(header)
    given = parsed.parameters or {}
    check_parameters(given)
    binary = given.get("binary_data_output", False)
    inputs = tuple((each, _binary_size(each)) for each in parsed.inputs)
    timeout_us = given.get("timeout", 0)
    return Plan(
        parsed.id,
        inputs,
        _outputs(parsed.outputs, binary),
        binary,
        timeout_us / 1e6 if timeout_us else None,
        given.get("variant") or None,
        given.get("priority", 0),
    )


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
    if given.datatype not in _DATATYPES:
        raise _bad_datatype(given)
    if len(given.shape) > MAX_RANK or any(not 0 <= size < 2**63 for size in given.shape):
        raise BadRequest(
            f"input '{given.name}' has the shape {list(given.shape)[:MAX_RANK]}: "
            f"at most {MAX_RANK} sizes, none of them negative or beyond 63 bits"
        )
    if parameters.binary_data_size is not None and parameters.binary_data_size < 0:
        raise BadRequest(f"input '{given.name}': 'binary_data_size' must not be negative")
    return parameters.binary_data_size


def _bad_datatype(given: Input) -> BadRequest:
    return BadRequest(
        f"invalid datatype '{given.datatype[:40]}' for input '{given.name}'; it must be one of {', '.join(DATATYPES)}"
    )


def place_of(whose: str, parameters: MemoryParameters) -> Place:
    """Where in shared memory. Raises BadRequest."""
    region, offset, nbytes = (
        parameters.shared_memory_region, parameters.shared_memory_offset, parameters.shared_memory_byte_size
    )  # fmt: skip
    if not region or nbytes is None or offset < 0 or nbytes < 0:
        raise BadRequest(
            f"{whose}: shared memory takes 'shared_memory_region' and 'shared_memory_byte_size', perhaps "
            "'shared_memory_offset', in bytes"
        )
    return Place(region, offset, nbytes)


def check_parameters(given: dict[str, Any]) -> None:
    """Those with a meaning must be of their type; the others are the client's own business. Raises BadRequest."""
    for name, value in given.items():
        if name == "headers" or name.startswith("triton_"):
            raise BadRequest(
                f"parameter '{name[:60]}' is reserved: parameter keys starting with 'triton_' and 'headers' are for "
                "Triton's own usage and should not be specified"
            )
        if not isinstance(value, str | int | float):
            raise BadRequest(
                f"parameter '{name[:60]}' has invalid type. It should be either 'int', 'bool', 'string', or 'double'."
            )
    for name in ("binary_data_output", "sequence_start", "sequence_end"):
        if not isinstance(given.get(name, False), bool):
            raise BadRequest(f"Unable to parse '{name}': it must be true or false")
    for name, words in (("timeout", "a whole number of microseconds"), ("priority", "a level, a whole number")):
        value = given.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
            raise BadRequest(f"Unable to parse '{name}': it must be {words}")
    if isinstance(sequence := given.get("sequence_id", 0), bool | float):
        raise BadRequest(f"Unable to parse 'sequence_id': {sequence} is neither a whole number nor a text")
    if not isinstance(given.get("variant", ""), str):
        raise BadRequest("parameter 'variant' must be the id of a variant")


def _outputs(asked: tuple[Output, ...] | None, binary: bool) -> tuple[Asked, ...] | None:
    """What is wanted of each output. Raises BadRequest."""
    if not asked:
        return None
    return tuple(_asked(output, output.parameters, binary) for output in asked)


def _asked(output: Output, parameters: OutputParameters | None, binary: bool) -> Asked:
    if parameters is None:
        return Asked(output.name, binary)
    place = None
    if parameters.shared_memory_region is not None:
        for name, value in (("classification", parameters.classification), ("binary_data", parameters.binary_data)):
            if value:  # tritonclient says `false` beside a region
                raise BadRequest(f"output '{output.name}': shared memory can't be set with '{name}'")
        place = place_of(f"output '{output.name}'", parameters)
    classes = 0
    if parameters.classification is not None:
        classes = parameters.classification
        if classes < 1:
            raise BadRequest(f"output '{output.name}': 'classification' must be the number of classes, 1 or more")
    return Asked(output.name, binary if parameters.binary_data is None else parameters.binary_data, classes, place)

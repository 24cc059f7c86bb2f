"""The parameter maps of gRPC requests as plain values, and the ones that mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import BadRequest

Value = bool | int | float | str | bytes
_RESERVED_BUT_ALLOWED = "triton_enable_empty_final_response"
"""tritonclient sets it on streams; an answer here is always the final one, so there is nothing to do."""


class Options(msgspec.Struct, frozen=True):
    """What a request asks for beside its outputs. `priority`: 1 is the highest, 0 the default."""

    timeout_s: float | None = None
    priority: int = 0
    variant: str | None = None


class Place(msgspec.Struct, frozen=True):
    """Bytes of a registered shared memory region."""

    region: str
    offset: int
    nbytes: int


def values_of(parameters: Any) -> dict[str, Any]:
    """A map of InferParameter or ModelRepositoryParameter; unset ones are left out."""
    values = {}
    for name, parameter in parameters.items():
        if (choice := parameter.WhichOneof("parameter_choice")) is not None:
            values[name] = getattr(parameter, choice)
    return values


def options_of(given: Mapping[str, Any]) -> Options:
    """Raises BadRequest for reserved names and wrong types."""
    for name in given:
        if name == "headers" or (name.startswith("triton_") and name != _RESERVED_BUT_ALLOWED):
            raise BadRequest(f"parameter '{name}' is reserved and cannot be given in a request")
    timeout = _whole(given, "timeout", "microseconds")
    variant = given.get("variant")
    if variant is not None and not isinstance(variant, str):
        raise BadRequest("parameter 'variant' must be the id of a variant")
    return Options(timeout / 1e6 if timeout else None, _whole(given, "priority", "a level"), variant or None)


def place_of(given: Mapping[str, Any], of: str) -> Place | None:
    """Where in shared memory a tensor is; None: it is in the message. Raises BadRequest."""
    region = given.get("shared_memory_region")
    if region is None:
        return None
    nbytes, offset = given.get("shared_memory_byte_size"), given.get("shared_memory_offset", 0)
    if not isinstance(region, str) or not region:
        raise BadRequest(f"{of}: 'shared_memory_region' must be the name of a region")
    for name, value in (("shared_memory_byte_size", nbytes), ("shared_memory_offset", offset)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BadRequest(f"{of}: '{name}' must be a whole number of bytes")
    return Place(region, offset, nbytes or 0)


def _whole(given: Mapping[str, Any], name: str, unit: str) -> int:
    value = given.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f"parameter '{name}' must be a whole number ({unit})")
    return value

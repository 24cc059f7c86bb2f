"""The parameter maps of gRPC requests as plain values, and the ones that mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.codec.v2_header import Place, check_parameters
from gateway.errors import BadRequest

_RESERVED_BUT_ALLOWED = "triton_enable_empty_final_response"
"""tritonclient sets it on streams; an answer here is always the final one, so there is nothing to do."""


class Options(msgspec.Struct, frozen=True):
    """What a request asks for beside its outputs. `priority`: 1 is the highest, 0 the default."""

    timeout_s: float | None = None
    priority: int = 0
    variant: str | None = None


def values_of(parameters: Any) -> dict[str, Any]:
    """A map of InferParameter or ModelRepositoryParameter; unset ones are left out."""
    values = {}
    for name, parameter in parameters.items():
        if (choice := parameter.WhichOneof("parameter_choice")) is not None:
            values[name] = getattr(parameter, choice)
    return values


def options_of(given: Mapping[str, Any]) -> Options:
    """Raises BadRequest for reserved names and wrong types, as over HTTP."""
    check_parameters({name: value for name, value in given.items() if name != _RESERVED_BUT_ALLOWED})
    timeout_us = given.get("timeout", 0)
    return Options(timeout_us / 1e6 if timeout_us else None, given.get("priority", 0), given.get("variant") or None)


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

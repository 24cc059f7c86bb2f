"""What the paths of `/v2` have in common: the place of a version, and small JSON bodies.

A body counts as JSON whatever its Content-Type says, and may be missing: real clients send neither the one nor the
other with care.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import Path, Request
from starlette.convertors import Convertor, register_url_convertor

from gateway.errors import BadRequest, TooLarge


class _Version(Convertor[str]):
    """A decimal version; anything else is another path, and so a 404."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> str:
        return str(int(value))

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("version", _Version())

_OFF_LOOP_BYTES = 1 << 20
VERSION = "/versions/{version:version}"
Name = Annotated[str, Path(description="the model")]
Version = Annotated[
    str, Path(description="its version, a decimal number", json_schema_extra={"pattern": r"^\d{1,18}$"})
]


async def json_object(request: Request, most_bytes: int | None = None) -> dict[str, Any]:
    """The body as an object; empty when there is none. Raises BadRequest, TooLarge (over `most_bytes`)."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if most_bytes is not None and len(body) > most_bytes:
            raise TooLarge(f"request JSON size exceeds the maximum allowed input size of {most_bytes} bytes")
    if len(body) > _OFF_LOOP_BYTES:
        return await asyncio.to_thread(_parse, body)
    return _parse(body)


def _parse(body: bytearray) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise BadRequest(f"failed to parse the request JSON buffer: {exc}") from None
    if not isinstance(parsed, dict):
        raise BadRequest("failed to parse the request JSON: it must be an object")
    return {key: _integral(value) for key, value in parsed.items()}


def _integral(value: Any) -> Any:
    """1.0 is an integer in JSON's eyes."""
    if isinstance(value, list):
        return [_integral(item) if isinstance(item, float) else item for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole(body: dict[str, Any], name: str, otherwise: int | None = None) -> int:
    """A non-negative integer of a body. Raises BadRequest."""
    value = body.get(name, otherwise)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise BadRequest(f"Unable to parse '{name}': it must be a whole number, 0 or more")
    return value

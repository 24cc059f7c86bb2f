"""`/v2/repository`: which models there are, load and unload."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway import repository
from gateway.errors import BadRequest, Unsupported
from gateway.routes import v2_schemas as schemas
from gateway.routes.v2_paths import Name, json_object
from gateway.routes.views import reply
from gateway.state import Here

router = APIRouter(prefix="/v2/repository", tags=["v2: repository"])


@router.post("/index", responses=schemas.answer(schemas.INDEX), openapi_extra=schemas.body(schemas.INDEX_REQUEST))
async def index(request: Request, gateway: Here) -> Response:
    """Every version with its state; only those that are ready if `ready` says so."""
    ready = (await json_object(request)).get("ready", False)
    if not isinstance(ready, bool):
        raise BadRequest("Unable to parse 'ready': it must be true or false")
    return reply(repository.index(gateway, ready))


@router.post(
    "/models/{name}/load",
    response_class=Response,
    responses=schemas.empty_answer(_500="there is no such model, or it cannot be opened", _501="cannot be changed"),
    openapi_extra=schemas.body(schemas.LOAD_REQUEST),
)
async def load(name: Name, request: Request, gateway: Here) -> Response:
    """Load a model; the answer comes when it is ready.

    `config` changes what can be changed until the next load; `file:<version>/model.onnx` registers a new version.
    """
    async with gateway.uploads:
        given = _parameters(await json_object(request, gateway.settings.max_body_bytes))
        parameters = {key: await _value(name, key, value) for key, value in given.items()}
        await repository.load(gateway, name, parameters)
    return Response()


@router.post(
    "/models/{name}/unload",
    response_class=Response,
    responses=schemas.empty_answer(),
    openapi_extra=schemas.body(schemas.UNLOAD_REQUEST),
)
async def unload(name: Name, request: Request, gateway: Here) -> Response:
    """Unload a model: not ready from now on, until it is loaded again or the gateway starts anew."""
    given = _parameters(await json_object(request))
    if not isinstance(given.get("unload_dependents", False), bool):
        raise BadRequest("Unable to parse 'unload_dependents': it must be true or false")
    await repository.unload(gateway, name)
    return Response()


@router.post("/{repository_name}/index", include_in_schema=False)
async def named_index(repository_name: str) -> Response:
    """There is one repository and it has no name: 501."""
    raise Unsupported("'repository_name' specification is not supported")


@router.post("/{repository_name}/models/{name}/load", include_in_schema=False)
@router.post("/{repository_name}/models/{name}/unload", include_in_schema=False)
async def named_repository(repository_name: str, name: str) -> Response:
    """There is one repository and it has no name: 501."""
    raise Unsupported("'repository_name' specification is not supported")


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    given = body.get("parameters", {})
    if not isinstance(given, dict):
        raise BadRequest("Unable to parse 'parameters': it must be an object")
    return given


async def _value(name: str, key: str, value: Any) -> str | bytes:
    if not isinstance(value, str):
        raise BadRequest(f"failed to load '{name}': parameter '{key[:60]}' must be a text")
    if not key.startswith("file:"):
        return value
    try:
        return await asyncio.to_thread(base64.b64decode, value, None, True)
    except (binascii.Error, ValueError) as exc:
        raise BadRequest(f"failed to load '{name}': parameter '{key[:60]}' is not base64: {exc}") from None

"""`/v2/models/{name}[/versions/{version}]`: metadata, readiness, configuration and statistics of models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from gateway.errors import NotReady
from gateway.metadata import metadata_of
from gateway.model_config import config_of
from gateway.routes import v2_schemas as schemas
from gateway.routes.v2_paths import VERSION, Name, Version
from gateway.routes.views import reply
from gateway.state import Gateway, Here

router = APIRouter(prefix="/v2/models", tags=["v2: models"])


@router.get("/stats", responses=schemas.answer(schemas.STATISTICS))
async def all_statistics(gateway: Here) -> Response:
    """Statistics of every ready version of every model."""
    return reply({"model_stats": await gateway.ask("statistics")})


@router.get("/{name}", responses=schemas.answer(schemas.MODEL))
async def model_metadata(name: Name, gateway: Here) -> Response:
    """Inputs, outputs and ready versions of a model."""
    return reply(metadata_of(gateway.serving.table, name))


@router.get("/{name}" + VERSION, responses=schemas.answer(schemas.MODEL))
async def version_metadata(name: Name, version: Version, gateway: Here) -> Response:
    """Inputs and outputs of one version."""
    return reply(metadata_of(gateway.serving.table, name, version))


@router.get("/{name}/ready", responses=schemas.answer(schemas.MODEL_READY))
async def model_ready(name: Name, gateway: Here) -> Response:
    """Whether the model would answer now."""
    return reply(await _ready(gateway, name, None))


@router.get("/{name}" + VERSION + "/ready", responses=schemas.answer(schemas.MODEL_READY))
async def version_ready(name: Name, version: Version, gateway: Here) -> Response:
    """Whether this version would answer now."""
    return reply(await _ready(gateway, name, version))


@router.get("/{name}/config", responses=schemas.answer(schemas.CONFIG))
async def model_config(name: Name, gateway: Here) -> Response:
    """The configuration of a model in Triton's form."""
    return reply(_config(gateway, name, None))


@router.get("/{name}" + VERSION + "/config", responses=schemas.answer(schemas.CONFIG))
async def version_config(name: Name, version: Version, gateway: Here) -> Response:
    """The configuration of one version in Triton's form."""
    return reply(_config(gateway, name, version))


@router.get("/{name}/stats", responses=schemas.answer(schemas.STATISTICS))
async def model_statistics(name: Name, gateway: Here) -> Response:
    """Statistics of every ready version of a model."""
    return reply({"model_stats": await gateway.ask("statistics", name=name)})


@router.get("/{name}" + VERSION + "/stats", responses=schemas.answer(schemas.STATISTICS))
async def version_statistics(name: Name, version: Version, gateway: Here) -> Response:
    """Statistics of one version."""
    return reply({"model_stats": await gateway.ask("statistics", name=name, version=version)})


async def _ready(gateway: Gateway, name: str, version: str | None) -> dict[str, Any]:
    route = gateway.serving.table.resolve(name, version)
    if not all(await gateway.do("is_open", name=name, version=version)):
        raise NotReady(f"Request for unknown model: '{name}' version {route.version} is not at ready state")
    return {"name": name, "ready": True}


def _config(gateway: Gateway, name: str, version: str | None) -> dict[str, Any]:
    _, override = gateway.follower.hold(name)
    return config_of(gateway.serving.table.resolve(name, version), override)

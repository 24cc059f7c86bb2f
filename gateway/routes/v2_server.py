"""`/v2`: the server's health, metadata and list of models."""

from __future__ import annotations

from importlib.metadata import version as installed

from fastapi import APIRouter
from starlette.responses import Response

from gateway.errors import NotReady
from gateway.extensions import extensions
from gateway.routes import v2_schemas as schemas
from gateway.routes.views import reply
from gateway.state import Here

router = APIRouter(prefix="/v2", tags=["v2: server"])


@router.get("", responses=schemas.answer(schemas.SERVER))
async def server_metadata(gateway: Here) -> Response:
    """Name, version and extensions of this server."""
    settings = gateway.settings
    return reply({"name": settings.server_name, "version": installed("forgeway"), "extensions": extensions(settings)})


@router.get("/health/live", responses=schemas.answer(schemas.LIVE))
async def live() -> Response:
    """The event loop turns."""
    return reply({"live": True})


@router.get("/health/ready", responses=schemas.answer(schemas.READY))
async def ready(gateway: Here) -> Response:
    """200 while predictions should be sent here; 503 with the reason otherwise, and from the first signal on."""
    if gateway.draining.is_set():
        raise NotReady("Server not ready: it is shutting down")
    is_ready, reason = gateway.serving.ready()
    if not is_ready:
        raise NotReady(f"Server not ready: {reason}")
    return reply({"ready": True, "live": True})


@router.get("/models", responses=schemas.answer(schemas.MODELS))
async def list_models(gateway: Here) -> Response:
    """Names of the models that can answer."""
    return reply({"models": [name for name, routes in gateway.serving.table.models.items() if routes.versions]})

"""`/v2`: health, metadata and the repository index of the Open Inference Protocol, as its clients expect them.

Everything here is read from the route table in memory. Inference itself does not pass through these routes
(fastlane.py); load, unload, configuration and statistics are not served yet and so not listed as extensions.
"""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from gateway.errors import NotReady
from gateway.ranking import VersionRoute
from gateway.routes.views import reply
from gateway.state import Gateway, Here

router = APIRouter(prefix="/v2", tags=["v2"])

EXTENSIONS = ("binary_tensor_data", "parameters")
PLATFORM = "onnxruntime_onnx"


class IndexRequest(BaseModel):
    """`ready`: only models that are ready. Other keys are ignored, as Triton does."""

    model_config = ConfigDict(extra="ignore")

    ready: bool = False


@router.get("")
async def server_metadata(gateway: Here) -> Response:
    """Name, version and extensions of this server."""
    return reply(
        {"name": gateway.settings.server_name, "version": installed("forgeway"), "extensions": list(EXTENSIONS)}
    )


@router.get("/health/live")
async def live() -> Response:
    """The event loop turns."""
    return reply({"live": True})


@router.get("/health/ready")
async def ready(gateway: Here) -> Response:
    """200 while predictions should be sent here; 503 with the reason otherwise, and from the first signal on."""
    if gateway.draining.is_set():
        raise NotReady("Server not ready: it is shutting down")
    is_ready, reason = gateway.serving.ready()
    if not is_ready:
        raise NotReady(f"Server not ready: {reason}")
    return reply({"ready": True, "live": True})


@router.get("/models")
async def list_models(gateway: Here) -> Response:
    """Names of the models that can answer."""
    return reply({"models": [name for name, routes in gateway.serving.table.models.items() if routes.versions]})


@router.get("/models/{name}")
async def model_metadata(name: str, gateway: Here) -> Response:
    """Inputs, outputs and ready versions of a model."""
    route = gateway.serving.table.resolve(name)
    return reply(_metadata(route, list(gateway.serving.table.models[name].versions)))


@router.get("/models/{name}/versions/{version:int}")
async def version_metadata(name: str, version: int, gateway: Here) -> Response:
    """Inputs and outputs of one version."""
    return reply(_metadata(gateway.serving.table.resolve(name, str(version)), [str(version)]))


@router.get("/models/{name}/ready")
async def model_ready(name: str, gateway: Here) -> Response:
    """Whether the model would answer now."""
    return _ready(gateway, name, None)


@router.get("/models/{name}/versions/{version:int}/ready")
async def version_ready(name: str, version: int, gateway: Here) -> Response:
    """Whether this version would answer now."""
    return _ready(gateway, name, str(version))


@router.post("/repository/index")
async def repository_index(gateway: Here, asked: IndexRequest | None = None) -> Response:
    """Every version with its state."""
    only_ready = asked is not None and asked.ready
    index: list[dict[str, str]] = []
    for name, routes in gateway.serving.table.models.items():
        for number, route in routes.versions.items():
            state, reason = ("READY", "") if _answers(route) else ("UNAVAILABLE", "its runner is starting")
            index.append({"name": name, "version": number, "state": state, "reason": reason})
        for number, why in routes.absent.items():
            index.append({"name": name, "version": number, "state": "UNAVAILABLE", "reason": why})
        if not (routes.versions or routes.absent):
            index.append({"name": name})
    return reply([row for row in index if not only_ready or row.get("state") == "READY"])


def _ready(gateway: Gateway, name: str, version: str | None) -> Response:
    route = gateway.serving.table.resolve(name, version)
    if not _answers(route):
        raise NotReady(f"Request for unknown model: '{name}' version {route.version} is not at ready state")
    return reply({"name": name, "ready": True})


def _answers(route: VersionRoute) -> bool:
    return any(session.ready for session in route.sessions.values())


def _metadata(route: VersionRoute, versions: list[str]) -> dict[str, Any]:
    def specs(of: Any) -> list[dict[str, Any]]:
        return [{"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in of]

    return {
        "name": route.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": specs(route.signature.inputs),
        "outputs": specs(route.signature.outputs),
    }

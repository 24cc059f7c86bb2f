"""The ASGI application: the door, the fast lane, and behind them the management API with the words of its refusals.

What the page at `/docs` is made of comes from here, too (fastapi-offline): a gateway often cannot reach the network.
"""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from compilers.targets import UnknownTarget
from gateway.auth import ASSETS
from gateway.bodies import BoundedBodies
from gateway.errors import APPLICATION_JSON, GatewayError, error_body, status_of, text_of
from gateway.fastlane import FastLane
from gateway.httpd.door import Door
from gateway.routes import (
    aliases,
    jobs,
    metrics,
    models,
    predictions,
    targets,
    v2_controls,
    v2_models,
    v2_repository,
    v2_server,
    v2_shared_memory,
    versions,
)
from gateway.state import Gateway
from model_store.errors import StoreError
from model_store.policy import InvalidPolicy

V2 = (v2_server, v2_models, v2_repository, v2_shared_memory, v2_controls)
ROUTERS = (predictions, models, versions, aliases, jobs, targets, *V2, metrics)


def build_app(gateway: Gateway) -> Door:
    """The ASGI application: door, fast lane, management API."""
    api: FastAPI = FastAPIOffline(
        title="Forgeway",
        version=installed("forgeway"),
        summary="Serve models through the fastest variant that is proven right.",
        redirect_slashes=False,
        redoc_url=None,
        static_url=ASSETS,
        responses={"default": {"description": "what went wrong", "content": {APPLICATION_JSON: {"schema": _ERROR}}}},
    )
    api.state.gateway = gateway
    api.add_middleware(BoundedBodies)
    for module in ROUTERS:
        api.include_router(module.router)
    for kind in (GatewayError, StoreError, InvalidPolicy, UnknownTarget):
        api.add_exception_handler(kind, _refused)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _invalid)
    return Door(FastLane(api, gateway.serving), gateway.keyring)


_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


async def _refused(request: Request, exc: Exception) -> Response:
    headers = exc.headers if isinstance(exc, GatewayError) else None
    return _error(status_of(exc), text_of(exc), headers)


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    headers = {"allow": _methods(request.scope["path"])} if exc.status_code == 405 else exc.headers
    return _error(exc.status_code, exc.detail, headers)


def _methods(path: str) -> str:
    """Every method of a path: the router names only those of the first route that has it."""
    routes = [route for module in ROUTERS for route in module.router.routes if isinstance(route, Route)]
    methods = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    return ", ".join(sorted(methods)) or "GET"


async def _invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in exc.errors()]
    return _error(400, "; ".join(faults))


def _error(status: int, text: str, headers: Any = None) -> Response:
    return Response(error_body(text), status, dict(headers or {}), media_type=APPLICATION_JSON)

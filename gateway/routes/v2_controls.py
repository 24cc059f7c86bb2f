"""`/v2/logging` and `.../trace/setting`: what can be set while the server runs."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.errors import NotFound
from gateway.routes import v2_schemas as schemas
from gateway.routes.v2_paths import Name, json_object
from gateway.routes.views import reply
from gateway.state import Gateway, Here

router = APIRouter(prefix="/v2", tags=["v2: controls"])


@router.get("/logging", responses=schemas.answer(schemas.LOG_SETTINGS))
async def log_settings(gateway: Here) -> Response:
    """What is logged."""
    return reply(gateway.controls.log_settings())


@router.post("/logging", responses=schemas.answer(schemas.LOG_SETTINGS), openapi_extra=schemas.body(schemas.LOG_CHANGE))
async def set_log(request: Request, gateway: Here) -> Response:
    """Change what is logged, until the gateway ends; answers with all settings."""
    return reply((await gateway.do("set_log", settings=await json_object(request)))[0])


@router.get("/trace/setting", responses=schemas.answer(schemas.TRACE_SETTINGS))
async def trace_settings(gateway: Here) -> Response:
    """The trace settings of all models. Kept and reported; nothing is traced by them."""
    return reply(gateway.controls.trace_settings())


@router.post(
    "/trace/setting", responses=schemas.answer(schemas.TRACE_SETTINGS), openapi_extra=schemas.body(schemas.TRACE_CHANGE)
)
async def set_trace(request: Request, gateway: Here) -> Response:
    """Change trace settings (null: back to the default); answers with all of them."""
    return reply((await gateway.do("set_trace", settings=await json_object(request)))[0])


@router.get("/models/{name}/trace/setting", responses=schemas.answer(schemas.TRACE_SETTINGS))
async def model_trace_settings(name: Name, gateway: Here) -> Response:
    """The trace settings of one model."""
    _known(gateway, name)
    return reply(gateway.controls.trace_settings(name))


@router.post(
    "/models/{name}/trace/setting",
    responses=schemas.answer(schemas.TRACE_SETTINGS),
    openapi_extra=schemas.body(schemas.TRACE_CHANGE),
)
async def set_model_trace(name: Name, request: Request, gateway: Here) -> Response:
    """Change trace settings of one model (null: back to those of all models)."""
    body = await json_object(request)
    _known(gateway, name)
    return reply((await gateway.do("set_trace", settings=body, model=name))[0])


def _known(gateway: Gateway, name: str) -> None:
    if name not in gateway.serving.table.models:
        raise NotFound(f"Request for unknown model: '{name}' is not found")

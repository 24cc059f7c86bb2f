"""`/v2/systemsharedmemory` and `/v2/cudasharedmemory`: regions that tensors are read from and written to."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.errors import BadRequest
from gateway.routes import v2_schemas as schemas
from gateway.routes.v2_paths import json_object, whole
from gateway.routes.views import reply
from gateway.state import Here

router = APIRouter(prefix="/v2", tags=["v2: shared memory"])


@router.get("/systemsharedmemory/status", responses=schemas.answer(schemas.REGIONS))
async def status(gateway: Here) -> Response:
    """Every region of system shared memory."""
    return reply(gateway.serving.regions.status())


@router.get("/systemsharedmemory/region/{region}/status", responses=schemas.answer(schemas.REGIONS))
async def region_status(region: str, gateway: Here) -> Response:
    """One region of system shared memory."""
    return reply(gateway.serving.regions.status(region))


@router.post(
    "/systemsharedmemory/region/{region}/register",
    response_class=Response,
    responses=schemas.empty_answer(_501="not enabled by the operator"),
    openapi_extra=schemas.body(schemas.REGISTER_REQUEST, required=True),
)
async def register(region: str, request: Request, gateway: Here) -> Response:
    """Take part of the shared memory `key` under a name. Only where the setting `shared_memory` is on, else 501."""
    body = await json_object(request)
    key = body.get("key")
    if not isinstance(key, str):
        raise BadRequest("Unable to parse 'key': it must be a text, such as /my_shared_memory")
    offset, byte_size = whole(body, "offset", 0), whole(body, "byte_size")
    await gateway.ask("register_region", name=region, key=key, offset=offset, byte_size=byte_size)
    return Response()


@router.post("/systemsharedmemory/unregister", response_class=Response, responses=schemas.empty_answer())
async def unregister_all(gateway: Here) -> Response:
    """Forget every region of system shared memory."""
    await gateway.do("unregister_region")
    return Response()


@router.post(
    "/systemsharedmemory/region/{region}/unregister", response_class=Response, responses=schemas.empty_answer()
)
async def unregister(region: str, gateway: Here) -> Response:
    """Forget one region; one that is not there is no error."""
    await gateway.do("unregister_region", name=region)
    return Response()


@router.get("/cudasharedmemory/status", responses=schemas.answer(schemas.CUDA_REGIONS))
async def cuda_status(gateway: Here) -> Response:
    """Every region of CUDA shared memory: none."""
    return reply(gateway.cuda_regions.status())


@router.get("/cudasharedmemory/region/{region}/status", responses=schemas.answer(schemas.CUDA_REGIONS))
async def cuda_region_status(region: str, gateway: Here) -> Response:
    """One region of CUDA shared memory."""
    return reply(gateway.cuda_regions.status(region))


@router.post(
    "/cudasharedmemory/region/{region}/register",
    response_class=Response,
    responses=schemas.empty_answer(),
    openapi_extra=schemas.body(schemas.CUDA_REGISTER_REQUEST, required=True),
)
async def cuda_register(region: str, request: Request, gateway: Here) -> Response:
    """Refused: the gateway holds no GPU."""
    await json_object(request)
    gateway.cuda_regions.register(region)
    return Response()


@router.post("/cudasharedmemory/unregister", response_class=Response, responses=schemas.empty_answer())
async def cuda_unregister_all(gateway: Here) -> Response:
    """Forget every region of CUDA shared memory."""
    gateway.cuda_regions.unregister()
    return Response()


@router.post("/cudasharedmemory/region/{region}/unregister", response_class=Response, responses=schemas.empty_answer())
async def cuda_unregister(region: str, gateway: Here) -> Response:
    """Forget one region of CUDA shared memory."""
    gateway.cuda_regions.unregister(region)
    return Response()

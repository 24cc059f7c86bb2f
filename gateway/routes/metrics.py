"""`/metrics`: what Prometheus scrapes."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gateway.state import Here

router = APIRouter(tags=["metrics"])

_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics", response_class=Response)
async def metrics(gateway: Here) -> Response:
    """Every metric in the text format of Prometheus."""
    return Response(await gateway.ask("metrics"), headers={"content-type": _EXPOSITION})

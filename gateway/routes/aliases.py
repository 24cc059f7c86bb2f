"""`/v1/models/{name}/aliases/{alias}`: names for versions; predictions that name no version follow `champion`."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from gateway.routes.views import reply
from gateway.state import Here

router = APIRouter(prefix="/v1/models/{name}/aliases", tags=["aliases"])


class Pointer(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    version: str


@router.put("/{alias}")
async def set_alias(name: str, alias: str, pointer: Pointer, gateway: Here) -> Response:
    """Make or move an alias. Requests in flight end on the version they began with."""
    await asyncio.to_thread(gateway.store.catalog.set_alias, name, alias, pointer.version)
    await gateway.followed()
    return reply({"name": name, "alias": alias, "version": pointer.version})


@router.delete("/{alias}")
async def delete_alias(name: str, alias: str, gateway: Here) -> Response:
    """Remove an alias; the version stays."""
    await asyncio.to_thread(gateway.store.catalog.delete_alias, name, alias)
    await gateway.followed()
    return reply({"name": name, "alias": alias, "deleted": True})

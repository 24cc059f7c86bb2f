"""`/v1/models`: what is registered."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway.routes.views import model_view, reply
from gateway.state import Gateway, Here
from model_store.names import valid_name

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
async def list_models(gateway: Here) -> Response:
    """Every model with its versions and aliases."""
    return reply({"models": await asyncio.to_thread(_all, gateway)})


@router.get("/{name}")
async def get_model(name: str, gateway: Here) -> Response:
    """One model with its versions and aliases."""
    return reply(await asyncio.to_thread(_one, gateway, name))


@router.delete("/{name}")
async def delete_model(name: str, gateway: Here) -> Response:
    """Unload and delete a model: its versions, aliases and variants; its open jobs are cancelled."""
    await asyncio.to_thread(gateway.store.catalog.delete_model, name)
    await gateway.followed()
    return reply({"name": name, "deleted": True})


@router.get("/{name}/route")
async def explain_route(
    name: str,
    gateway: Here,
    rows: Annotated[int, Query(ge=1, le=1_000_000, description="rows of the batch")] = 1,
    version: Annotated[str | None, Query(description="number or alias; default: what a prediction would take")] = None,
) -> Response:
    """Which variant would answer a batch of so many rows, why, and when it would be done there and elsewhere."""
    await asyncio.to_thread(gateway.store.catalog.model, valid_name(name))  # 404 with the nearest name
    return reply(gateway.serving.table.explain(name, version, rows, gateway.serving.forecast_of))


def _all(gateway: Gateway) -> list[dict[str, Any]]:
    catalog = gateway.store.catalog
    return [model_view(model, catalog.versions(model.name)) for model in catalog.models()]


def _one(gateway: Gateway, name: str) -> dict[str, Any]:
    catalog = gateway.store.catalog
    return model_view(catalog.model(name), catalog.versions(name))

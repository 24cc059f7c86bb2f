"""`/v1/models/{name}/versions`: upload, look at, compile again, delete."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from compilers.targets import available, entry, missing_packages
from gateway import report
from gateway.errors import BadRequest, Conflict, Draining
from gateway.routes.accepting import wants_json
from gateway.routes.views import reply, version_view
from gateway.state import Gateway, Here
from gateway.uploads import receive_upload
from model_store.names import valid_name
from model_store.policy import parse_policy

router = APIRouter(prefix="/v1/models/{name}/versions", tags=["versions"])

_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["model"],
                    "properties": {
                        "model": {
                            "type": "string",
                            "format": "binary",
                            "description": "the ONNX file, or a zip or tar of it with its external data",
                        },
                        "samples": {
                            "type": "string",
                            "format": "binary",
                            "description": "npz: one array per input, first axis = sample; `labels` optional",
                        },
                        "policy": {"type": "object", "description": "objective, targets, techniques, gate, ..."},
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Again(BaseModel):
    """What to compile again; everything has a default: all targets, all recipes, the version's own policy."""

    model_config = ConfigDict(extra="forbid")

    targets: list[str] | None = None
    recipes: list[str] | None = None
    policy: dict[str, Any] | None = None


@router.post("", status_code=202, openapi_extra=_UPLOAD_BODY)
async def register(name: str, request: Request, gateway: Here) -> Response:
    """Register a new version. It answers predictions within seconds and gets faster variants while it serves."""
    valid_name(name)
    if gateway.draining.is_set():
        raise Draining
    folder, limit = gateway.settings.data / "uploads", gateway.settings.max_upload_bytes
    async with gateway.uploads, receive_upload(request, folder, limit) as upload:
        policy = {} if upload.policy is None else upload.policy
        targets = _targets(parse_policy(policy).targets)
        take_in = functools.partial(
            gateway.store.register, name, upload.model, samples=upload.samples, policy=policy, targets=targets
        )
        async with gateway.intakes:
            version, jobs = await asyncio.to_thread(take_in)
    await gateway.followed()
    answer = {
        "name": version.name,
        "version": version.version,
        "status": version.status,
        "jobs": [job.id for job in jobs],
    }
    return reply(answer, 202, {"location": f"/v1/models/{name}/versions/{version.version}"})


@router.get("")
async def list_versions(name: str, gateway: Here) -> Response:
    """Every version of the model with its variants."""
    catalog = gateway.store.catalog
    versions = await asyncio.to_thread(catalog.versions, name)
    return reply({"versions": [await asyncio.to_thread(_view, gateway, name, item.version) for item in versions]})


@router.get("/{version}")
async def get_version(name: str, version: str, gateway: Here) -> Response:
    """One version (a number or an alias): status, signature, and every variant with verdict, reason and evidence."""
    return reply(await asyncio.to_thread(_view, gateway, name, version))


_CARD: dict[int | str, dict[str, Any]] = {
    200: {"description": "the proof card", "content": {"text/html": {}, "application/json": {}}}
}


@router.get("/{version}/report", responses=_CARD, response_class=Response)
async def get_report(
    name: str,
    version: str,
    gateway: Here,
    accept: Annotated[str, Header(description="application/json: the card as JSON; anything else: a page")] = "",
    form: Annotated[Literal["html", "json"] | None, Query(alias="format", description="wins over `Accept`")] = None,
) -> Response:
    """The proof card of a version: what was tried, what was measured, what was chosen and why, and how to repeat it.

    One self-contained page without scripts, or the same facts as JSON. It may be asked for at any time: while the
    version is still compiling it holds what is known so far, and says so.
    """
    card = await asyncio.to_thread(report.gather, gateway.store, name, version)
    if form == "json" or (form is None and wants_json(accept)):
        return reply(report.card_view(card), headers={"vary": "accept"})
    return Response(await asyncio.to_thread(report.page, card), 200, report.HEADERS, media_type="text/html")


@router.delete("/{version}")
async def delete_version(name: str, version: str, gateway: Here) -> Response:
    """Unload and delete a version. Refused while an alias points at it; its open jobs are cancelled."""
    await asyncio.to_thread(gateway.store.catalog.delete_version, name, version)
    await gateway.followed()
    return reply({"name": name, "version": version, "deleted": True})


@router.post("/{version}/compile", status_code=202)
async def compile_again(name: str, version: str, gateway: Here, again: Again | None = None) -> Response:
    """Compile again, beside what serves; a variant that is proven anew replaces the old one of the same id."""
    asked = again or Again()
    found = await asyncio.to_thread(gateway.store.catalog.resolve, name, version)
    policy = parse_policy(found.policy if asked.policy is None else asked.policy)
    targets = _targets(asked.targets if asked.targets is not None else policy.targets)
    request = asked.model_dump(exclude_none=True)
    jobs = await asyncio.to_thread(gateway.store.catalog.enqueue, name, found.version, targets, request)
    return reply({"name": name, "version": found.version, "jobs": [job.id for job in jobs]}, 202)


def _targets(asked: Any) -> tuple[str, ...]:
    """The targets asked for, or all that this installation has. Raises BadRequest, UnknownTarget, Conflict."""
    if asked is None:
        return available()
    if not asked:
        raise BadRequest("`targets` is empty: name at least one, or leave it out for all")
    for name in asked:
        entry(name)
        if missing := missing_packages(name):
            raise Conflict(f"target {name!r} cannot be built for here: {', '.join(missing)} is not installed")
    return tuple(dict.fromkeys(asked))


def _view(gateway: Gateway, name: str, version: str) -> Mapping[str, Any]:
    catalog = gateway.store.catalog
    found = catalog.resolve(name, version)
    return version_view(found, catalog.variants(name, found.version), catalog.model(name).aliases)

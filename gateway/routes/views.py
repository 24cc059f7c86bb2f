"""How entities look outside: the JSON of the management API (DESIGN section 5), from entities alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.errors import APPLICATION_JSON
from model_store.entities import Evidence, Job, JobEvent, Model, ModelVersion, Variant


def reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; the content type carries no charset, which some clients compare."""
    return Response(msgspec.json.encode(value), status, dict(headers or {}), media_type=APPLICATION_JSON)


def model_view(model: Model, versions: Sequence[ModelVersion]) -> dict[str, Any]:
    return {
        "name": model.name,
        "created_at": model.created_at,
        "aliases": dict(model.aliases),
        "versions": [
            {
                "version": version.version,
                "status": version.status,
                "reason": version.reason,
                "size_bytes": version.size_bytes,
                "parameters": version.parameters,
                "created_at": version.created_at,
            }
            for version in versions
        ],
    }


def version_view(version: ModelVersion, variants: Sequence[Variant], aliases: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "status": version.status,
        "reason": version.reason,
        "aliases": sorted(alias for alias, number in aliases.items() if number == version.version),
        "size_bytes": version.size_bytes,
        "parameters": version.parameters,
        "operators": dict(version.operators),
        "has_samples": version.samples is not None,
        "policy": version.policy,
        "created_at": version.created_at,
        "signature": msgspec.to_builtins(version.signature),
        "variants": [variant_view(variant) for variant in variants],
    }


def variant_view(variant: Variant) -> dict[str, Any]:
    view: dict[str, Any] = {
        "id": variant.id,
        "recipe": variant.recipe,
        "target": variant.target,
        "techniques": list(variant.techniques),
        "parameters": variant.parameters,
        "verdict": variant.verdict,
        "reason": variant.reason,
        "size_bytes": variant.size_bytes,
        "evidence": _evidence_view(variant.evidence),
        "created_at": variant.created_at,
    }
    if variant.artifact is not None:
        view["options"] = dict(variant.artifact.options)
        view["opened_bytes"] = variant.artifact.size_bytes
        if variant.artifact.stored_bytes is not None:
            view["stored_bytes"] = variant.artifact.stored_bytes
    if variant.plan is not None:
        view["plan"] = msgspec.to_builtins(variant.plan)
    return view


def job_view(job: Job) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(job)
    del view["token"], view["lease_until"]  # between the catalog and its workers
    return view


def event_view(event: JobEvent) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(event)
    return view


def _evidence_view(evidence: Evidence | None) -> dict[str, Any]:
    """Always the same keys; figures that do not apply are left out, an agreement that was not measured is null."""
    if evidence is None:
        return {"agreement": None, "timings": [], "hardware": {}}
    view: dict[str, Any] = _known(msgspec.to_builtins(evidence))
    return {"agreement": None, **view}


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items() if item is not None}
    return [_known(item) for item in value] if isinstance(value, list | tuple) else value

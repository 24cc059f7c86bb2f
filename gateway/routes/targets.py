"""`/v1/targets`: what this installation can build for and run on, and why not. No runtime is imported to say so."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from compilers.hardware import fingerprint, has_bf16
from compilers.targets import TARGETS, TargetEntry, missing_packages
from gateway.routes.views import reply

router = APIRouter(prefix="/v1/targets", tags=["targets"])


@router.get("")
async def list_targets() -> Response:
    """Every target of this release, available or not, and the facts about this CPU that decide."""
    return reply(describe_targets())


def describe_targets() -> dict[str, Any]:
    return {"targets": [_view(entry) for entry in TARGETS.values()], "hardware": fingerprint()}


def _view(entry: TargetEntry) -> dict[str, Any]:
    missing = missing_packages(entry.name)
    unable = {} if has_bf16() else {"bf16": "this CPU has no bfloat16 arithmetic (avx512_bf16, amx_bf16)"}
    return {
        "name": entry.name,
        "device": entry.device,
        "available": not missing,
        "reason": f"not installed: {', '.join(missing)}" if missing else "",
        "precisions": [precision for precision in entry.precisions if precision not in unable],
        "unavailable_precisions": {name: why for name, why in unable.items() if name in entry.precisions},
        "requires": list(entry.requires),
    }

"""The prediction endpoints as documentation: they are in OpenAPI and answer 405 to other methods.

POST never comes this far: the fast lane in front of the application answers it (fastlane.py).
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from gateway.errors import Unsupported
from gateway.routes import v2_schemas as schemas
from gateway.routes.v2_paths import VERSION, Name, Version

router = APIRouter(tags=["predictions"])

_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_INFER: dict[str, Any] = {
    "parameters": [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "required": False,
            "description": "bytes of JSON before binary tensors; 0: the body is one raw tensor",
            "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {schemas.JSON: {"schema": schemas.INFER_REQUEST}, **_BINARY},
    },
}
_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the outputs; binary ones lie behind the JSON",
        "content": {schemas.JSON: {"schema": schemas.INFER_ANSWER}, **_BINARY},
        "headers": {
            "inference-header-content-length": {
                "description": "bytes of the JSON, when binary tensors follow it", "schema": {"type": "string"},
            },
            "forgeway-variant": {"description": "who answered", "schema": {"type": "string"}},
            "server-timing": {"description": "milliseconds of every stage", "schema": {"type": "string"}},
        },
    }
}  # fmt: skip
_PREDICT = {
    "type": "object",
    "required": ["instances"],
    "properties": {"instances": {"type": "array", "minItems": 1, "items": {}}},
}
_PREDICTED = {"type": "object", "required": ["predictions"], "properties": {"predictions": {}}}


@router.post("/v2/models/{name}/infer", openapi_extra=_INFER, responses=_ANSWERED)
async def infer(name: Name) -> Response:
    """Predict (V2, JSON or binary). The headers `forgeway-variant` and `Server-Timing` say who answered, and how."""
    raise AssertionError("the fast lane answers this")


@router.post("/v2/models/{name}" + VERSION + "/infer", openapi_extra=_INFER, responses=_ANSWERED)
async def version_infer(name: Name, version: Version) -> Response:
    """Predict with one version (V2, JSON or binary)."""
    raise AssertionError("the fast lane answers this")


@router.post("/v2/models/{name}/generate", include_in_schema=False)
@router.post("/v2/models/{name}/generate_stream", include_in_schema=False)
@router.post("/v2/models/{name}" + VERSION + "/generate", include_in_schema=False)
@router.post("/v2/models/{name}" + VERSION + "/generate_stream", include_in_schema=False)
async def generate(name: Name) -> Response:
    """Triton's provisional text generation: 501."""
    raise Unsupported("the generate extension is not supported by this server; /infer answers every model")


@router.post(
    "/v1/models/{name}:predict", openapi_extra=schemas.body(_PREDICT, True), responses=schemas.answer(_PREDICTED)
)
async def predict(name: Name) -> Response:
    """Predict (V1): `{"instances": [...]}` gives `{"predictions": [...]}`."""
    raise AssertionError("the fast lane answers this")

"""The prediction endpoints as documentation: they are in OpenAPI and answer 405 to other methods.

POST never comes this far: the fast lane in front of the application answers it (fastlane.py).
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

router = APIRouter(tags=["predictions"])

_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string", "example": "FP32"},
        "data": {"type": "array", "items": {}},
        "parameters": {"type": "object"},
    },
}
_INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "inputs": {"type": "array", "items": _TENSOR},
                        "outputs": {"type": "array", "items": {"type": "object"}},
                        "parameters": {"type": "object", "description": "`variant` pins one; `timeout` in µs"},
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_PREDICT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["instances"],
                    "properties": {"instances": {"type": "array", "items": {}}},
                }
            }
        },
    }
}


@router.post("/v2/models/{name}/infer", openapi_extra=_INFER)
@router.post("/v2/models/{name}/versions/{version:int}/infer", openapi_extra=_INFER)
async def infer() -> Response:
    """Predict (V2, JSON or binary). The headers `forgeway-variant` and `Server-Timing` say who answered, and how."""
    raise AssertionError("the fast lane answers this")


@router.post("/v1/models/{name}:predict", openapi_extra=_PREDICT)
async def predict() -> Response:
    """Predict (V1): `{"instances": [...]}` gives `{"predictions": [...]}`."""
    raise AssertionError("the fast lane answers this")

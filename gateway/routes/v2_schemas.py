"""Bodies of V2 as OpenAPI schemas: what FastAPI cannot derive, since these routes read and write JSON themselves."""

from __future__ import annotations

from typing import Any

from gateway.running.wire import DATATYPES

Schema = dict[str, Any]

JSON = "application/json"


def answer(schema: Schema) -> dict[int | str, dict[str, Any]]:
    """The 200 of a route."""
    return {200: {"description": "as described", "content": {JSON: {"schema": schema}}}}


def empty_answer(**refusals: str) -> dict[int | str, dict[str, Any]]:
    """The 200 of a route that has nothing to say, and refusals beyond 4xx that are meant: `_501="why"`."""
    meant: dict[int | str, dict[str, Any]] = {
        int(status[1:]): {"description": words, "content": {JSON: {"schema": ERROR}}}
        for status, words in refusals.items()
    }
    return {200: {"description": "done; the body is empty"}, **meant}


def body(schema: Schema, required: bool = False) -> dict[str, Any]:
    """The JSON body a route takes."""
    return {"requestBody": {"required": required, "content": {JSON: {"schema": schema}}}}


def _object(properties: dict[str, Schema], *required: str, more: bool = True) -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": more}
    if required:
        found["required"] = list(required)
    return found


def _array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
SIZE: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
YES_NO: Schema = {"type": "boolean"}
TRUE: Schema = {"type": "boolean", "enum": [True]}

SERVER = _object({"name": TEXT, "version": TEXT, "extensions": _array(TEXT)}, "name", "version", "extensions")
LIVE = _object({"live": TRUE}, "live")
READY = _object({"ready": TRUE, "live": TRUE}, "ready")
MODELS = _object({"models": _array(TEXT)}, "models")
_SPEC = _object(
    {"name": TEXT, "datatype": {"type": "string", "enum": list(DATATYPES)}, "shape": _array({"type": "integer"})},
    "name",
    "datatype",
    "shape",
)
MODEL = _object(
    {
        "name": TEXT,
        "versions": _array(TEXT),
        "platform": TEXT,
        "inputs": _array(_SPEC),
        "outputs": _array(_SPEC),
    },
    "name",
    "versions",
    "platform",
    "inputs",
    "outputs",
)
MODEL_READY = _object({"name": TEXT, "ready": TRUE}, "name", "ready")
CONFIG = _object(
    {
        "name": TEXT,
        "platform": TEXT,
        "backend": TEXT,
        "max_batch_size": WHOLE,
        "input": _array({"type": "object"}),
        "output": _array({"type": "object"}),
    },
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "input",
    "output",
)
_FIGURES = _object({"count": WHOLE, "ns": WHOLE}, "count", "ns")
STATISTICS = _object(
    {
        "model_stats": _array(
            _object(
                {
                    "name": TEXT,
                    "version": TEXT,
                    "last_inference": WHOLE,
                    "inference_count": WHOLE,
                    "execution_count": WHOLE,
                    "inference_stats": {"type": "object", "additionalProperties": _FIGURES},
                    "response_stats": {"type": "object"},
                    "batch_stats": _array({"type": "object"}),
                    "memory_usage": _array({"type": "object"}),
                },
                "name",
                "version",
                "inference_count",
                "execution_count",
                "inference_stats",
            )
        )
    },
    "model_stats",
)

INDEX_REQUEST = _object({"ready": YES_NO})
INDEX = _array(
    _object(
        {
            "name": TEXT,
            "version": TEXT,
            "state": {"type": "string", "enum": ["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"]},
            "reason": TEXT,
        },
        "name",
    )
)
LOAD_REQUEST = _object(
    {
        "parameters": {
            "type": "object",
            "properties": {
                "config": {"type": "string", "description": 'JSON of a ModelConfig, such as {"max_batch_size": 8}'}
            },
            "patternProperties": {"^file:": {"type": "string", "format": "byte"}},
            "additionalProperties": False,
        }
    }
)
UNLOAD_REQUEST = _object({"parameters": _object({"unload_dependents": YES_NO})})

REGISTER_REQUEST = _object(
    {
        "key": {"type": "string", "pattern": r"^/[A-Za-z0-9_.-]{1,254}$", "example": "/my_shared_memory"},
        "offset": SIZE,
        "byte_size": SIZE,
    },
    "key",
    "byte_size",
)
CUDA_REGISTER_REQUEST = _object(
    {"raw_handle": _object({"b64": TEXT}, "b64"), "device_id": WHOLE, "byte_size": SIZE}, "raw_handle", "byte_size"
)
REGIONS = _array(
    _object({"name": TEXT, "key": TEXT, "offset": WHOLE, "byte_size": WHOLE}, "name", "key", "offset", "byte_size")
)
CUDA_REGIONS = _array(_object({"name": TEXT, "device_id": WHOLE, "byte_size": WHOLE}, "name"))

_LOG: dict[str, Schema] = {
    "log_info": YES_NO,
    "log_warning": YES_NO,
    "log_error": YES_NO,
    "log_verbose_level": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    "log_format": {"type": "string", "enum": ["default", "ISO8601"]},
}
LOG_SETTINGS = _object({"log_file": TEXT, **_LOG}, "log_file", *_LOG, more=False)
LOG_CHANGE = _object(_LOG, more=False)
_LEVELS = _array({"type": "string", "enum": ["OFF", "TIMESTAMPS", "TENSORS"]}, minItems=1)
TRACE_SETTINGS = _object(
    {
        "trace_level": _LEVELS,
        "trace_rate": TEXT,
        "trace_count": TEXT,
        "log_frequency": TEXT,
        "trace_file": TEXT,
        "trace_mode": TEXT,
    },
    "trace_level",
    "trace_rate",
    "trace_count",
    "log_frequency",
    "trace_file",
    "trace_mode",
)


def _one_or_list(pattern: str, least: int) -> Schema:
    """A setting as clients write it: a text or a number, alone or in a list of one; null resets it."""
    one: list[Schema] = [
        {"type": "string", "pattern": pattern},
        {"type": "integer", "minimum": least, "maximum": 10**9 - 1},
    ]
    return {"anyOf": [*one, _array({"anyOf": one}, minItems=1, maxItems=1), {"type": "null"}]}


TRACE_CHANGE = _object(
    {
        "trace_level": {"anyOf": [_LEVELS, _LEVELS["items"], {"type": "null"}]},
        "trace_rate": _one_or_list("^[1-9][0-9]{0,8}$", 1),
        "trace_count": _one_or_list("^(-1|[0-9]{1,9})$", -1),
        "log_frequency": _one_or_list("^[0-9]{1,9}$", 0),
        "trace_file": {"type": ["string", "null"], "maxLength": 4096},
        "trace_mode": {"type": ["string", "null"], "enum": ["triton", None]},
    },
    more=False,
)

VALUE: Schema = {"type": ["string", "integer", "number", "boolean"]}
_SHARED: dict[str, Schema] = {
    "shared_memory_region": TEXT,
    "shared_memory_offset": SIZE,
    "shared_memory_byte_size": SIZE,
}
_DATA: Schema = {
    "description": "flat or nested, row-major",
    "type": "array",
    "items": {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "boolean"}, {"type": "array", "items": {}}]},
}
_INPUT = _object(
    {
        "name": TEXT,
        "shape": _array(SIZE, maxItems=32),
        "datatype": {"type": "string", "enum": list(DATATYPES)},
        "data": _DATA,
        "parameters": _object({"binary_data_size": SIZE, **_SHARED}),
    },
    "name",
    "shape",
    "datatype",
)
_OUTPUT = _object(
    {
        "name": TEXT,
        "parameters": _object({"binary_data": YES_NO, "classification": {"type": "integer", "minimum": 1}, **_SHARED}),
    },
    "name",
)
INFER_REQUEST = _object(
    {
        "id": TEXT,
        "inputs": _array(_INPUT),
        "outputs": _array(_OUTPUT),
        "parameters": {
            "type": "object",
            "description": "those without a meaning here are passed over; `triton_*` and `headers` are refused",
            "properties": {
                "timeout": {**SIZE, "description": "microseconds until the answer is of no use; 0: none of its own"},
                "priority": {**SIZE, "description": "1 is the highest, 0 the default"},
                "binary_data_output": {**YES_NO, "description": "for outputs that do not say"},
                "variant": {**TEXT, "description": "insist on one variant"},
                "sequence_id": {"type": ["string", "integer"]},
                "sequence_start": YES_NO,
                "sequence_end": YES_NO,
            },
            "additionalProperties": VALUE,
        },
    },
    "inputs",
)
INFER_ANSWER = _object(
    {
        "id": TEXT,
        "model_name": TEXT,
        "model_version": TEXT,
        "parameters": {"type": "object"},
        "outputs": _array(
            _object(
                {
                    "name": TEXT,
                    "datatype": {"type": "string", "enum": list(DATATYPES)},
                    "shape": _array(WHOLE),
                    "data": {"type": "array"},
                    "parameters": {"type": "object"},
                },
                "name",
                "datatype",
                "shape",
            )
        ),
    },
    "model_name",
    "model_version",
    "outputs",
)

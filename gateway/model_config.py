"""A model version as Triton's ModelConfig, and the override a `load` may bring (PROTOCOL section 6).

Only what is true is said: no keys of features that are not there, since clients change their ways by their presence.
Rows are counted like Triton does: with `max_batch_size` above zero the batch axis is left out of `dims`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.batching.line import DEFAULT_LEVEL, LAST_LEVEL
from gateway.errors import BadRequest, Unsupported
from gateway.routing.ranking import VersionRoute
from model_store.entities import TensorSpec

PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"
MODEL_FILE = "model.onnx"
MOST_PARAMETERS = 256

Override = Mapping[str, Any]
"""What a `load` changed: `max_batch_size` (int) and `parameters`, each only when given."""


def config_of(route: VersionRoute, override: Override | None = None) -> dict[str, Any]:
    """The ModelConfig of a version, as JSON. `route` is already limited by the override's `max_batch_size`."""
    rows = route.max_batch_size
    config: dict[str, Any] = {
        "name": route.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"all": {}},
        "max_batch_size": rows,
        "input": [
            {**_tensor(spec, rows), "format": "FORMAT_NONE", "optional": False} for spec in route.signature.inputs
        ],
        "output": [{**_tensor(spec, rows), "label_filename": ""} for spec in route.signature.outputs],
        "instance_group": [{"name": f"{route.name}_0", "kind": "KIND_CPU", "count": 1, "gpus": []}],
        "default_model_filename": MODEL_FILE,
        "parameters": dict((override or {}).get("parameters", {})),
    }
    if rows:
        config["dynamic_batching"] = {
            "preferred_batch_size": [route.max_rows],
            "max_queue_delay_microseconds": 0,
            "priority_levels": LAST_LEVEL,
            "default_priority_level": DEFAULT_LEVEL,
        }
    return config


def parse_override(text: str | bytes, name: str) -> dict[str, Any]:
    """The JSON of a load's `config` as far as it is understood on its own. Raises BadRequest."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"failed to load '{name}': the parameter 'config' is not JSON: {exc}") from None
    if not isinstance(given, dict):
        raise BadRequest(f"failed to load '{name}': the parameter 'config' must hold a JSON object")
    if given.get("name", name) not in (name, ""):
        raise BadRequest(f"failed to load '{name}': its config names another model, {given['name']!r}")
    return given


def override_from(given: Mapping[str, Any], route: VersionRoute) -> dict[str, Any]:
    """What `given` (a ModelConfig, whole or in part) changes of `route`; integers may be texts, as protobuf has them.

    `max_batch_size` can be lowered, and raised up to what the model was proven for, and `parameters` are kept and
    reported; everything else must say what is true anyway. Raises BadRequest, Unsupported.
    """
    override: dict[str, Any] = {}
    if "max_batch_size" in given:
        override["max_batch_size"] = _rows(given["max_batch_size"], route)
    if given.get("parameters"):
        override["parameters"] = _parameters(given["parameters"], route.name)
    limited = limit(route, override)
    truths = [_plain(config_of(limited, override)), _plain(config_of(route, override))]
    for key, value in given.items():
        if key in ("max_batch_size", "parameters", "name", "dynamic_batching") or not value:
            continue
        if not any(_says(_plain(value), truth.get(key)) for truth in truths):
            raise Unsupported(
                f"failed to load '{route.name}': '{str(key)[:60]}' of a model cannot be changed on this server; "
                "max_batch_size and parameters can"
            )
    return override


def limit(route: VersionRoute, override: Override | None) -> VersionRoute:
    """The route with at most as many rows a batch as the override says."""
    rows = (override or {}).get("max_batch_size")
    return route if rows is None else route.limited(min(rows, route.max_batch_size))


def _tensor(spec: TensorSpec, rows: int) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    dims = list(spec.shape[1:] if rows else spec.shape)
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": dims, "is_shape_tensor": False}


def _rows(value: Any, route: VersionRoute) -> int:
    rows = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
        raise BadRequest(f"failed to load '{route.name}': max_batch_size must be a whole number, not {value!r:.40}")
    most = route.max_batch_size
    if rows and not most:
        raise BadRequest(
            f"failed to load '{route.name}': max_batch_size {rows} hints for batching, but the rows of this model "
            "see one another or its first axis is fixed: only 0 is possible"
        )
    if rows > most:
        raise BadRequest(
            f"failed to load '{route.name}': max_batch_size {rows} is more than {most}, which is what was proven"
        )
    return rows


def _parameters(given: Any, name: str) -> dict[str, Any]:
    fits = isinstance(given, dict) and all(
        isinstance(value, dict) and value.keys() == {"string_value"} and isinstance(value["string_value"], str)
        for value in given.values()
    )
    if not fits or len(given) > MOST_PARAMETERS:
        raise BadRequest(
            f"failed to load '{name}': config parameters look like "
            f'{{"key": {{"string_value": "value"}}}}, at most {MOST_PARAMETERS} of them'
        )
    kept: dict[str, Any] = given
    return kept


def _says(value: Any, truth: Any) -> bool:
    """Whether `value` claims nothing beyond the truth. Empty and zero values are protobuf's way to say nothing."""
    if isinstance(value, dict):
        return isinstance(truth, dict) and all(not item or _says(item, truth.get(key)) for key, item in value.items())
    if isinstance(value, list):
        return (
            isinstance(truth, list)
            and len(value) == len(truth)
            and all(_says(item, other) for item, other in zip(value, truth, strict=True))
        )
    return bool(value == truth)


def _plain(value: Any) -> Any:
    """Integers as protobuf's JSON may write them, as strings, are integers."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str) and len(value) < 20 and value.removeprefix("-").isdecimal() and value.isascii():
        return int(value)
    return value

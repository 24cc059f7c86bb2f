"""Every call as data: what to ask and how to read the answer. No I/O here, so the two clients share all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
import orjson

from gateway.client import tensors

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request. `again` says whether a second try after an unclear end does no harm;
    `refusals` that a refusal is an answer to read, not an error.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    again: bool = True
    refusals: bool = False


class Prediction(dict[str, np.ndarray]):
    """Outputs by name, and which variant answered. `stages` holds the server's own times in seconds by stage."""

    def __init__(self, outputs: Mapping[str, np.ndarray], head: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__(outputs)
        self.model: str = head["model_name"]
        self.version: str = head.get("model_version", "")
        self.id: str | None = head.get("id")
        self.variant: str | None = headers.get("forgeway-variant")
        self.stages: dict[str, float] = _stages(headers.get("server-timing", ""))


def infer(
    model: str,
    inputs: Mapping[str, Any],
    number: str | None,
    outputs: Sequence[str] | None,
    variant: str | None,
    timeout_s: float | None,
    request_id: str | None,
) -> Call[Prediction]:
    parameters: dict[str, Any] = {} if variant is None else {"variant": variant}
    if timeout_s is not None:
        parameters["timeout"] = int(timeout_s * 1e6)  # V2: microseconds
    body, head = tensors.encode(inputs, outputs, parameters, request_id)
    at = ("v2", "models", model) + (("versions", number) if number else ())
    headers = {tensors.LENGTH_HEADER: str(head), "content-type": "application/octet-stream"}
    return Call("POST", _path(*at, "infer"), _prediction, headers=headers, content=body)


def models() -> Call[list[dict[str, Any]]]:
    return Call("GET", "/v1/models", lambda response: _json(response)["models"])


def model(name: str) -> Call[dict[str, Any]]:
    return Call("GET", _path("v1", "models", name), _json)


def version(name: str, number: str) -> Call[dict[str, Any]]:
    return Call("GET", _path("v1", "models", name, "versions", number), _json)


def report(name: str, number: str) -> Call[dict[str, Any]]:
    return Call("GET", _path("v1", "models", name, "versions", number, "report"), _json, {"format": "json"})


def report_page(name: str, number: str) -> Call[str]:
    path = _path("v1", "models", name, "versions", number, "report")
    return Call("GET", path, lambda response: response.text, {"format": "html"})


def route(name: str, rows: int, number: str | None) -> Call[dict[str, Any]]:
    return Call("GET", _path("v1", "models", name, "route"), _json, _params(rows=rows, version=number))


def compile_again(name: str, number: str, request: Mapping[str, Any]) -> Call[dict[str, Any]]:
    return _send("POST", _path("v1", "models", name, "versions", number, "compile"), request, again=False)


def set_alias(name: str, alias: str, number: str) -> Call[dict[str, Any]]:
    return _send("PUT", _path("v1", "models", name, "aliases", alias), {"version": number}, again=True)


def delete_alias(name: str, alias: str) -> Call[dict[str, Any]]:
    return Call("DELETE", _path("v1", "models", name, "aliases", alias), _json, again=False)


def delete(name: str, number: str | None) -> Call[dict[str, Any]]:
    at = ("v1", "models", name) + (("versions", number) if number else ())
    return Call("DELETE", _path(*at), _json, again=False)


def jobs(name: str | None, number: str | None, state: str | None) -> Call[list[dict[str, Any]]]:
    params = _params(name=name, version=number, state=state)
    return Call("GET", "/v1/jobs", lambda response: _json(response)["jobs"], params)


def job(job_id: str) -> Call[dict[str, Any]]:
    return Call("GET", _path("v1", "jobs", job_id), _json)


def cancel(job_id: str) -> Call[dict[str, Any]]:
    return Call("DELETE", _path("v1", "jobs", job_id), _json)


def targets() -> Call[dict[str, Any]]:
    return Call("GET", "/v1/targets", _json)


def metadata(name: str, number: str | None) -> Call[dict[str, Any]]:
    at = ("v2", "models", name) + (("versions", number) if number else ())
    return Call("GET", _path(*at), _json)


def metrics() -> Call[str]:
    return Call("GET", "/metrics", lambda response: response.text)


def ready() -> Call[bool]:
    """True for 200, False for any refusal: never an error for a status."""
    return Call("GET", "/v2/health/ready", _is_ok, refusals=True)


def events_path(job_id: str, follow: bool) -> str:
    return _path("v1", "jobs", job_id, "events") + ("" if follow else "?follow=false")


def upload_path(name: str) -> str:
    return _path("v1", "models", name, "versions")


def _send(method: str, path: str, body: Any, again: bool) -> Call[dict[str, Any]]:
    headers = {"content-type": "application/json"}
    return Call(method, path, _json, headers=headers, content=orjson.dumps(body), again=again)


def _is_ok(response: httpx.Response) -> bool:
    return response.status_code == 200


def _json(response: httpx.Response) -> Any:
    return orjson.loads(response.content) if response.content else None


def _prediction(response: httpx.Response) -> Prediction:
    head, outputs = tensors.decode(response.content, response.headers.get(tensors.LENGTH_HEADER))
    return Prediction(outputs, head, response.headers)


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


def _params(**params: Any) -> dict[str, str]:
    return {key: str(value) for key, value in params.items() if value is not None}


def _stages(header: str) -> dict[str, float]:
    """`queue;dur=0.12, run;dur=1.5` (milliseconds) -> {"queue": 0.00012, "run": 0.0015}."""
    stages = {}
    for entry in filter(None, (part.strip() for part in header.split(","))):
        name, _, rest = entry.partition(";dur=")
        try:
            stages[name] = float(rest.split(";")[0]) / 1e3
        except ValueError:
            continue
    return stages

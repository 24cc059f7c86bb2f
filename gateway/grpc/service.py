"""The RPCs that are not inference: each is a reading or a change of what REST shows under /v2, in the same words.

A row of the table is an RPC: what it does, and the REST call whose key it needs. Answers are the JSON forms of their
messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version as installed
from typing import Any, NamedTuple

from google.protobuf import json_format

from gateway import repository
from gateway.errors import NotFound, NotReady, Unsupported
from gateway.extensions import extensions
from gateway.grpc import caller as calling
from gateway.grpc.caller import Caller
from gateway.grpc.health import is_ready
from gateway.grpc.infer import refusal
from gateway.grpc.messages import Method
from gateway.grpc.parameters import values_of
from gateway.metadata import metadata_of
from gateway.model_config import config_of
from gateway.state import Gateway

Json = dict[str, Any]


class Row(NamedTuple):
    """`path`: of the REST call that needs the same key; `{0}` is the request."""

    answer: Callable[[Gateway, Any], Awaitable[Json]]
    method: str
    path: str


def unary(gateway: Gateway, method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
    """The handler of one RPC of the table: message in, message out. Raises Refused."""
    row = ROWS[method.name]

    async def handle(request: Any, caller: Caller) -> Any:
        try:
            await _admit(gateway, row, request, caller)
            answer = await row.answer(gateway, request)
        except Exception as exc:
            raise refusal(exc, caller) from None
        return json_format.ParseDict(answer, method.response())

    return handle


async def _admit(gateway: Gateway, row: Row, request: Any, caller: Caller) -> None:
    reading = row.method == "SET" and not request.settings
    verb = {"SET": "GET" if reading else "POST"}.get(row.method, row.method)
    await calling.admit(gateway.keyring, caller, verb, row.path.format(request))


async def _live(gateway: Gateway, request: Any) -> Json:
    return {"live": True}


async def _ready(gateway: Gateway, request: Any) -> Json:
    return {"ready": is_ready(gateway)}


async def _model_ready(gateway: Gateway, request: Any) -> Json:
    """NOT_FOUND for a model nobody registered; one that is not loaded, or still opening, is not ready."""
    try:
        gateway.serving.table.resolve(request.name, request.version or None)
        return {"ready": all(await gateway.do("is_open", name=request.name, version=request.version or None))}
    except NotReady:
        return {"ready": False}
    except NotFound:
        known = gateway.serving.table.models.get(request.name)
        if known is None or not known.unloaded:
            raise
        return {"ready": False}


async def _server_metadata(gateway: Gateway, request: Any) -> Json:
    name = gateway.settings.server_name
    return {"name": name, "version": installed("forgeway"), "extensions": extensions(gateway.settings)}


async def _model_metadata(gateway: Gateway, request: Any) -> Json:
    return metadata_of(gateway.serving.table, request.name, request.version or None)


async def _model_config(gateway: Gateway, request: Any) -> Json:
    route = gateway.serving.table.resolve(request.name, request.version or None)
    return {"config": config_of(route, gateway.follower.hold(route.name)[1])}


async def _statistics(gateway: Gateway, request: Any) -> Json:
    given = {"name": request.name or None, "version": request.version or None}
    return {"model_stats": await gateway.ask("statistics", **given)}


async def _index(gateway: Gateway, request: Any) -> Json:
    _refuse_repository(request)
    return {"models": repository.index(gateway, request.ready)}


async def _load(gateway: Gateway, request: Any) -> Json:
    _refuse_repository(request)
    await repository.load(gateway, request.model_name, values_of(request.parameters))
    return {}


async def _unload(gateway: Gateway, request: Any) -> Json:
    _refuse_repository(request)
    await repository.unload(gateway, request.model_name)
    return {}


async def _shm_status(gateway: Gateway, request: Any) -> Json:
    return {"regions": {row["name"]: row for row in gateway.serving.regions.status(request.name or None)}}


async def _shm_register(gateway: Gateway, request: Any) -> Json:
    given = {"key": request.key, "offset": request.offset, "byte_size": request.byte_size}
    await gateway.ask("register_region", name=request.name, **given)
    return {}


async def _shm_unregister(gateway: Gateway, request: Any) -> Json:
    await gateway.do("unregister_region", name=request.name or None)
    return {}


async def _cuda_status(gateway: Gateway, request: Any) -> Json:
    return {"regions": {row["name"]: row for row in gateway.cuda_regions.status(request.name or None)}}


async def _cuda_register(gateway: Gateway, request: Any) -> Json:
    gateway.cuda_regions.register(request.name)
    return {}


async def _cuda_unregister(gateway: Gateway, request: Any) -> Json:
    gateway.cuda_regions.unregister(request.name or None)
    return {}


async def _trace(gateway: Gateway, request: Any) -> Json:
    model = request.model_name or None
    if model is not None:
        gateway.serving.table.resolve(model)
    given = {name: list(setting.value) or None for name, setting in request.settings.items()}
    settings = gateway.controls.trace_settings(model)
    if given:
        [settings, *_] = await gateway.do("set_trace", settings=given, model=model)
    texts = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    return {"settings": {name: {"value": value} for name, value in texts.items()}}


async def _log(gateway: Gateway, request: Any) -> Json:
    given = values_of(request.settings)
    settings = gateway.controls.log_settings()
    if given:
        [settings, *_] = await gateway.do("set_log", settings=given)
    return {"settings": {name: {_choice(value): value} for name, value in settings.items()}}


def _choice(value: Any) -> str:
    if isinstance(value, bool):
        return "bool_param"
    return "uint32_param" if isinstance(value, int) else "string_param"


def _refuse_repository(request: Any) -> None:
    if request.repository_name:
        raise Unsupported("'repository_name' specification is not supported")


ROWS = {
    "ServerLive": Row(_live, "GET", "/v2/health/live"),
    "ServerReady": Row(_ready, "GET", "/v2/health/ready"),
    "ModelReady": Row(_model_ready, "GET", "/v2/models/{0.name}/ready"),
    "ServerMetadata": Row(_server_metadata, "GET", "/v2"),
    "ModelMetadata": Row(_model_metadata, "GET", "/v2/models/{0.name}"),
    "ModelConfig": Row(_model_config, "GET", "/v2/models/{0.name}/config"),
    "ModelStatistics": Row(_statistics, "GET", "/v2/models/{0.name}/stats"),
    "RepositoryIndex": Row(_index, "POST", "/v2/repository/index"),
    "RepositoryModelLoad": Row(_load, "POST", "/v2/repository/models/{0.model_name}/load"),
    "RepositoryModelUnload": Row(_unload, "POST", "/v2/repository/models/{0.model_name}/unload"),
    "SystemSharedMemoryStatus": Row(_shm_status, "GET", "/v2/systemsharedmemory/status"),
    "SystemSharedMemoryRegister": Row(_shm_register, "POST", "/v2/systemsharedmemory/region/{0.name}/register"),
    "SystemSharedMemoryUnregister": Row(_shm_unregister, "POST", "/v2/systemsharedmemory/unregister"),
    "CudaSharedMemoryStatus": Row(_cuda_status, "GET", "/v2/cudasharedmemory/status"),
    "CudaSharedMemoryRegister": Row(_cuda_register, "POST", "/v2/cudasharedmemory/region/{0.name}/register"),
    "CudaSharedMemoryUnregister": Row(_cuda_unregister, "POST", "/v2/cudasharedmemory/unregister"),
    "TraceSetting": Row(_trace, "SET", "/v2/trace/setting"),
    "LogSettings": Row(_log, "SET", "/v2/logging"),
}
"""`SET`: a GET, or a POST when the request brings settings."""

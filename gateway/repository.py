"""The model repository of V2: which models there are, load and unload (PROTOCOL section 1).

`unload` takes a model out of the routing of this gateway, in memory, until it is loaded again or the gateway starts
anew; nothing is deleted. `load` brings it back, changes what a `config` override may change until the next load, and,
given files, registers them as a new version: versions are immutable here and numbered by the catalog, so the number
in `file:<version>/...` only tells which files belong together and in which order the versions come.
"""

from __future__ import annotations

import asyncio
import functools
import re
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compilers.targets import available
from gateway.errors import BadRequest, Draining, LoadFailed
from gateway.model_config import override_from, parse_override
from gateway.routing.ranking import VersionRoute
from gateway.state import Gateway
from model_store.entities import VersionStatus
from model_store.errors import Invalid, NotFound
from model_store.names import valid_name

Parameters = Mapping[str, str | bytes | int | bool]
_FILE = re.compile(r"file:([0-9]{1,9})/(.+)", re.DOTALL)
_MOST_FILES = 64
_LOOK_S, _ASK_S = 0.005, 0.1
_OPENING = "its reference is being opened"


def is_ready(route: VersionRoute) -> bool:
    """Whether the version would answer now."""
    return any(session.ready for session in route.sessions.values())


def index(gateway: Gateway, ready: bool = False) -> list[dict[str, str]]:
    """Every version with `name`, `version`, `state` and `reason`; only those that are ready if `ready`."""
    rows: list[dict[str, str]] = []
    for name, routes in gateway.serving.table.models.items():
        for number, route in routes.versions.items():
            state, reason = ("READY", "") if is_ready(route) else ("UNAVAILABLE", "its runner is starting")
            rows.append({"name": name, "version": number, "state": state, "reason": reason})
        for number, why in routes.absent.items():
            state = "LOADING" if why == _OPENING else "UNAVAILABLE"
            rows.append({"name": name, "version": number, "state": state, "reason": why})
        if not (routes.versions or routes.absent):
            rows.append({"name": name})
    return [row for row in rows if not ready or row.get("state") == "READY"]


async def load(gateway: Gateway, name: str, parameters: Parameters) -> None:
    """Load a model; returns when it answers. `parameters`: `config` (JSON text) and `file:<version>/<path>` (bytes).

    Raises BadRequest, Unsupported (an override of what cannot change), LoadFailed, Draining.
    """
    if gateway.draining.is_set():
        raise Draining
    files, given = _understood(name, parameters)
    if name not in gateway.serving.table.models and not files:
        raise LoadFailed(f"failed to load '{name}', failed to poll from model repository")
    newest = None
    for content in files:
        newest = await _register(gateway, name, content)
    loaded, before = gateway.follower.hold(name)
    await gateway.do("hold", name=name, loaded=True)
    try:
        route = await _opened(gateway, name, newest)
        override = override_from(given, route)
    except BaseException:
        await gateway.do("hold", name=name, loaded=loaded, override=before)
        raise
    if override:
        await gateway.do("hold", name=name, loaded=True, override=override)
    await gateway.do("wait_open", name=name, version=route.version)


async def unload(gateway: Gateway, name: str) -> None:
    """Take a model out of routing: it is not ready from now on; what it was asked before is still answered.

    A model that is not there or not loaded is no error.
    """
    if name in gateway.serving.table.models:
        await gateway.do("hold", name=name, loaded=False)


def _understood(name: str, parameters: Parameters) -> tuple[list[dict[str, bytes]], dict[str, Any]]:
    """(the files of each version in order of their numbers, path -> bytes; the config override)."""
    versions: dict[int, dict[str, bytes]] = {}
    given: dict[str, Any] = {}
    for key, value in parameters.items():
        if key == "config":
            if not isinstance(value, str | bytes):
                raise BadRequest(f"failed to load '{name}': the parameter 'config' must be a JSON text")
            given = parse_override(value, name)
        elif (file := _FILE.match(key)) is not None and isinstance(value, bytes):
            versions.setdefault(int(file[1]), {})[file[2]] = value
        else:
            raise BadRequest(
                f"failed to load '{name}': parameter '{key[:60]}' is not known; there are 'config' (a JSON text) and "
                "'file:<version>/<path>' (the bytes of a file, such as file:1/model.onnx)"
            )
    if sum(map(len, versions.values())) > _MOST_FILES:
        raise BadRequest(f"failed to load '{name}': more than {_MOST_FILES} files")
    return [versions[number] for number in sorted(versions)], given


async def _register(gateway: Gateway, name: str, files: Mapping[str, bytes]) -> str:
    """Register one version; its number."""
    try:
        valid_name(name)
        with tempfile.TemporaryDirectory(dir=gateway.store.work, prefix="load-") as folder:
            upload = await asyncio.to_thread(_lay_down, Path(folder, "upload"), files)
            take_in = functools.partial(gateway.store.register, name, upload, targets=available())
            async with gateway.intakes:
                version, _ = await asyncio.to_thread(take_in)
    except Invalid as exc:
        raise BadRequest(f"failed to load '{name}': {exc}") from None
    await gateway.followed()
    return version.version


def _lay_down(path: Path, files: Mapping[str, bytes]) -> Path:
    """One file as it is; several (a model and its external data) as the archive that uploads are, too."""
    if len(files) == 1:
        path.write_bytes(next(iter(files.values())))
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)  # a hostile name is the intake's business, as in any upload
    return path


async def _opened(gateway: Gateway, name: str, version: str | None) -> VersionRoute:
    """The route of a version (None: of the one that answers by default), once it answers. Raises LoadFailed."""
    end = time.monotonic() + gateway.settings.load_timeout_s
    asked = 0.0
    while time.monotonic() < end:
        routes = gateway.serving.table.models.get(name)
        if routes is not None:
            number = version or routes.default or ""
            if number in routes.versions and is_ready(routes.versions[number]):
                return routes.versions[number]
        if time.monotonic() - asked > _ASK_S:
            asked = time.monotonic()
            if (trouble := await asyncio.to_thread(_trouble, gateway, name, version)) is not None:
                raise LoadFailed(f"failed to load '{name}', {trouble}")
        await asyncio.sleep(_LOOK_S)
    raise LoadFailed(f"failed to load '{name}', it does not answer after {gateway.settings.load_timeout_s:g} s")


def _trouble(gateway: Gateway, name: str, version: str | None) -> str | None:
    """Why waiting is in vain; None while there is hope."""
    try:
        versions = gateway.store.catalog.versions(name)
    except NotFound:
        return "failed to poll from model repository"
    awaited = [each for each in versions if version in (None, each.version)]
    if not awaited:
        return "it has no available versions"
    if all(each.status is VersionStatus.FAILED for each in awaited):
        return f"version {awaited[-1].version} failed: {awaited[-1].reason}"
    return None

"""Who may do what: API keys with scopes, and the guard against other people's web pages.

A request that needs a scope carries a key as `Authorization: Bearer fw_...` or `X-API-Key: fw_...`. Keys are
remembered once found, so a prediction asks no database; a watcher forgets the revoked ones within half a second.

Without any key a gateway that listens on loopback is open to this machine, as a tool on one's own desk should be
(`require_keys` closes it). Then the browser is the danger: a web page may point a name of its own at 127.0.0.1 (DNS
rebinding), so an open gateway answers only to requests that call it by address or as localhost. A foreign Origin
may change nothing on any gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from gateway.errors import Forbidden, Unauthorized
from gateway.logs import event
from model_store.catalog import Catalog
from model_store.keys import ApiKey

_REMEMBERED = 4096
_REMEMBER_S, _REMEMBER_UNKNOWN_S = 3600.0, 2.0
_WATCH_S = 0.5

ASSETS = "/docs/assets"
"""Where the interactive documentation finds its scripts."""

OPEN: frozenset[str] = frozenset()
"""Needs no scope: health, server metadata, the interactive documentation."""

IMPLIED = {"register": "read", "compile": "read", "admin": "predict read register compile metrics"}
"""A scope that is of no use without others brings them along."""


@lru_cache(4096)
def needed(method: str, path: str) -> frozenset[str]:
    """The scopes any one of which allows the call; `OPEN` when none is needed.

    What is not named here needs `admin`: a forgotten route is closed, not open.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        if path in ("/v2", "/docs", "/openapi.json", "/docs/oauth2-redirect"):
            return OPEN
        if path.startswith(("/v2/health/", f"{ASSETS}/")):
            return OPEN
        if path == "/metrics":
            return frozenset(("metrics",))
        return frozenset(("read", "predict")) if path.startswith("/v2/") else frozenset(("read",))
    if method == "POST" and (path.endswith(("/infer", ":predict"))):
        return frozenset(("predict",))
    if method == "POST" and path.startswith(("/v2/systemsharedmemory/", "/v2/cudasharedmemory/")):
        return frozenset(("predict",))
    if method == "POST" and path == "/v2/repository/index":
        return frozenset(("read", "predict"))
    if method == "POST" and path.endswith("/compile"):
        return frozenset(("compile", "register"))
    if method == "DELETE" and path.startswith("/v1/jobs/"):
        return frozenset(("compile", "register"))
    if (method == "POST" and path.endswith("/versions")) or "/aliases/" in path:
        return frozenset(("register",))
    return frozenset(("admin",))


@lru_cache(4096)
def allows(held_scopes: tuple[str, ...], scopes: frozenset[str], path: str) -> bool:
    """Whether `held_scopes` hold one of `scopes`. `predict:NAME` counts only for paths of that model."""
    held: set[str] = set()
    for scope in held_scopes:
        kind, _, model = scope.partition(":")
        if not model or _model_of(path) == model:
            held |= {kind, *IMPLIED.get(kind, "").split()}
    return not scopes or not held.isdisjoint(scopes)


def refuse_foreign_origin(method: str, host: str, origin: str | None) -> None:
    """Refuse a change that a page of another site asks for. Raises Forbidden."""
    if origin is None or method in ("GET", "HEAD", "OPTIONS"):
        return
    if origin == "null" or urlsplit(origin).netloc.lower() != host.lower():
        raise Forbidden(f"a page of {origin[:200]} may not change this gateway: use the page the gateway itself serves")


def refuse_foreign_host(host: str) -> None:
    """Refuse a request that calls an open gateway by a name that a stranger could have made. Raises Forbidden."""
    name = _name_of(host)
    if _is_local(name):
        return
    raise Forbidden(
        f"this gateway has no API keys and so answers only to localhost or an address, not to {name[:200]!r}; "
        "make a key with `forgeway keys create` to be called by name"
    )


@lru_cache(256)
def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@lru_cache(256)
def _is_local(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost") or _is_address(name)


def is_loopback(host: str) -> bool:
    """Whether listening on `host` reaches this machine only."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


@dataclass(frozen=True, slots=True)
class _Found:
    key: ApiKey | None
    until: float


class Keyring:
    """The keys of the catalog, remembered. `watch` runs as long as the gateway does."""

    def __init__(self, catalog: Catalog, *, require: bool, named: bool) -> None:
        """`require`: closed even without any key. `named`: may be called by any host name even when open."""
        self._catalog = catalog
        self._require = require
        self._named = named
        self._any = False
        self._sequence = -1
        self._found: OrderedDict[bytes, _Found] = OrderedDict()
        self._lookups = asyncio.Semaphore(4)

    @property
    def is_open(self) -> bool:
        return not (self._any or self._require)

    async def refresh(self) -> None:
        """Learn what changed: whether there are keys, and which of the remembered ones are gone."""
        sequence = await asyncio.to_thread(self._catalog.sequence)
        if sequence == self._sequence:
            return
        alive = {key.id for key in await asyncio.to_thread(self._catalog.keys)}
        # Once closed, closed: revoking the last key must not open a running gateway.
        self._any = self._any or bool(alive)
        for digest, found in list(self._found.items()):
            if found.key is None or found.key.id not in alive:
                del self._found[digest]
        self._sequence = sequence

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                await self.refresh()
            except Exception as exc:  # the database is away for a while, however it says so: what is known holds
                event(logging.WARNING, "keys not refreshed", reason=type(exc).__name__)

    async def admit(self, method: str, path: str, host: str, origin: str | None, secret: str | None) -> ApiKey | None:
        """The key that allows the call; None when none is needed. Raises Unauthorized, Forbidden."""
        if self.is_open:
            self.guard(method, host, origin)
            return None
        refuse_foreign_origin(method, host, origin)
        scopes = needed(method, path)
        if not scopes:
            return None
        if secret is None:
            raise Unauthorized("an API key is needed: send it as `Authorization: Bearer fw_...`")
        key = await self._find(secret)
        if key is None:
            raise Unauthorized("this API key is not valid here: it is mistyped, expired or revoked")
        if not allows(key.scopes, scopes, path):
            raise Forbidden(f"API key {key.id} lacks the scope {_words(scopes)}; it has {_words(key.scopes)}")
        return key

    def guard(self, method: str, host: str, origin: str | None) -> None:
        """What an open gateway asks of a call. Raises Forbidden."""
        refuse_foreign_origin(method, host, origin)
        if not self._named:
            refuse_foreign_host(host)

    async def _find(self, secret: str) -> ApiKey | None:
        digest = hashlib.sha256(secret.encode("utf-8", "replace")).digest()
        found = self._found.get(digest)
        if found is None or found.until < time.time():
            async with self._lookups:
                key = await asyncio.to_thread(self._catalog.find_key, secret)
            until = time.time() + (_REMEMBER_UNKNOWN_S if key is None else _REMEMBER_S)
            if key is not None and key.expires_at is not None:
                until = min(until, key.expires_at)
            found = self._found[digest] = _Found(key, until)
            while len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        return found.key


def _model_of(path: str) -> str | None:
    """The model that `/v1/models/NAME...` or `/v2/models/NAME...` is about."""
    parts = path.split("/", 4)
    if len(parts) < 4 or parts[2] != "models":
        return None
    return parts[3].partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _words(scopes: Iterable[str]) -> str:
    return " or ".join(sorted(scopes)) or "none"

"""Follows the catalog: what was published is opened, warmed, and only then routed to; what was retired goes last.

The catalog is asked for its change number ten times a second, in a thread; the request path never waits for it. When
the catalog cannot be read, the last table goes on answering.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Any

from gateway.batching.batcher import Batcher
from gateway.errors import NotReady
from gateway.model_config import Override, limit
from gateway.routing.health import Subject
from gateway.routing.opening import Key, Openings, key_of
from gateway.routing.ranking import VersionRoute, rank
from gateway.routing.router import ModelRoutes, RouteTable
from gateway.running.session import Session
from gateway.serve import Serving
from gateway.settings import Settings
from model_store.entities import REFERENCE, Model, ModelVersion, Variant
from model_store.snapshot import Snapshot
from model_store.store import ModelStore

CHAMPION = "champion"
UNLOADED = "unloaded"
PINNED_IDLE_S = 300.0
"""A variant that was opened only because a request pinned it is closed after this long without another."""

log = logging.getLogger("forgeway.follow")


class Follower:
    """`run` until cancelled; `poke` when a change is known to have happened."""

    def __init__(self, store: ModelStore, serving: Serving, settings: Settings) -> None:
        self._store = store
        self._serving = serving
        self._interval_s = settings.follow_interval_s
        self._snapshot: Snapshot | None = None
        self._openings = Openings(store, serving.runners, settings, changed=self._route_anew)
        self._pinned: dict[Subject, float] = {}
        self._retiring: list[tuple[Batcher, Session]] = []
        self._published: set[Key] = set()
        self._poked = asyncio.Event()
        self._unloaded: set[str] = set()
        self._overrides: dict[str, Override] = {}
        serving.pin = self.pin

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self.step()
                timer = loop.call_later(self._interval_s, self._poked.set)  # `wait_for` would make a task each time
                await self._poked.wait()
                timer.cancel()
        finally:
            await self._openings.close()

    async def poke(self) -> None:
        """Look now."""
        self._poked.set()

    async def step(self) -> None:
        """Read what changed, if anything did. Never raises for what the catalog does."""
        self._poked.clear()
        try:
            sequence = self._store.catalog.unchanged_sequence()
            if sequence is None:
                sequence = await asyncio.to_thread(self._store.catalog.sequence)
            if self._snapshot is None or sequence != self._snapshot.sequence:
                self._snapshot = await asyncio.to_thread(self._store.catalog.snapshot)
                self._route_anew()
            elif self._openings.stale() or (self._pinned and self._forget_idle_pins()):
                self._route_anew()
            self._unload_retired()
            self._serving.trouble = ""
        except Exception as exc:  # whatever the database does, the last table goes on
            if not self._serving.trouble:
                log.exception("the catalog cannot be read; the last routes stay")
            self._serving.trouble = f"the catalog cannot be read: {type(exc).__name__}"
            self._serving.metrics.db_failed()

    def hold(self, name: str) -> tuple[bool, Override]:
        """Whether a model is loaded, and what its last load changed of it."""
        return name not in self._unloaded, self._overrides.get(name, {})

    def held(self) -> list[tuple[str, dict[str, Any]]]:
        """What was loaded otherwise and unloaded so far, as the deeds (gateway/everyone.py) that do it elsewhere."""
        loaded = [("hold", {"name": name, "loaded": True, "override": one}) for name, one in self._overrides.items()]
        return [*loaded, *(("hold", {"name": name, "loaded": False}) for name in self._unloaded)]

    def set_hold(self, name: str, loaded: bool, override: Override | None = None) -> None:
        """Load or unload a model, in the memory of this gateway only; routing follows at once."""
        if loaded:
            self._unloaded.discard(name)
        else:
            self._unloaded.add(name)
        if loaded and override:
            self._overrides[name] = override
        else:
            self._overrides.pop(name, None)
        self._route_anew()

    def pin(self, route: VersionRoute, variant: str) -> Awaitable[None] | None:
        """Keep a variant open for requests that pin it; None when it is open, else what to wait for."""
        self._pinned[Subject(route.name, route.version, variant)] = time.monotonic()
        now = self._before(route)
        return None if now is not None and variant in now.sessions else self._open_pinned(route, variant)

    async def _open_pinned(self, route: VersionRoute, variant: str) -> None:
        """Raises NotReady when it cannot be opened."""
        chosen = route.variants[variant]
        task = self._openings.want(chosen, route.signature, (1,))
        if task is not None:
            await asyncio.shield(task)
        if (text := self._openings.refused(chosen)) is not None:
            raise NotReady(f"variant {variant!r} cannot be opened here: {text}")
        self._route_anew()

    def _route_anew(self) -> None:
        """Build the whole table from the snapshot and what is open, and swap it in.

        What is wanted is opened and what nothing wants is let go of before any route is built, so that no route holds a
        session that is about to be closed; it is closed after the swap.
        """
        snapshot = self._snapshot
        if snapshot is None:
            return
        names = {model.name for model, _ in snapshot.models}
        self._unloaded &= names
        self._overrides = {name: override for name, override in self._overrides.items() if name in names}
        loaded = {model.name: versions for model, versions in snapshot.models if model.name not in self._unloaded}
        ranked = {name: [self._rank(*version) for version in versions] for name, versions in loaded.items()}
        retired = self._want([route for routes in ranked.values() for route in routes])
        models: dict[str, ModelRoutes] = {}
        batchers: dict[tuple[str, str], Batcher] = {}
        awaited = False
        for model, _ in snapshot.models:
            if model.name in self._unloaded:
                absent = dict.fromkeys(model.versions, UNLOADED)
                models[model.name] = ModelRoutes({}, model.aliases, None, absent, unloaded=True)
                continue
            routes: dict[str, VersionRoute] = {}
            absent = dict.fromkeys(model.versions, "it has no reference yet")
            for route in map(self._with_sessions, ranked[model.name]):
                if REFERENCE in route.sessions:
                    where = (route.name, route.version)
                    routes[route.version] = route
                    absent.pop(route.version, None)
                    batchers[where] = self._serving.batchers.get(where) or self._serving.runners.batcher(route)
                elif REFERENCE in route.variants:
                    absent[route.version] = route.refused.get(REFERENCE, "its reference is being opened")
                    awaited = awaited or REFERENCE not in route.refused
            models[model.name] = ModelRoutes(routes, model.aliases, _default(model, routes), absent)
        before = self._serving.batchers
        self._serving.swap(RouteTable(models, snapshot.sequence, self._serving.health), batchers)
        self._serving.starting = self._serving.starting and awaited
        self._retire({where: batcher for where, batcher in before.items() if where not in batchers}, retired)

    def _rank(self, version: ModelVersion, variants: tuple[Variant, ...]) -> VersionRoute:
        """The route of a version as its evidence has it, before anybody asked what is open."""
        by_id = {variant.id: variant for variant in variants}
        refused = {variant.id: text for variant in variants if (text := self._openings.refused(variant)) is not None}
        able = [variant for variant in variants if variant.id not in refused]
        unproven = bool(version.policy.get("serve_unproven", False))
        objective = version.policy.get("objective", "latency")
        buckets, ranked = rank(able, unproven, self._before(version), objective)
        self._publish_figures(variants)
        return VersionRoute(
            version.name, version.version, version.signature, by_id, buckets, ranked, unproven, refused,
            objective=objective,
        )  # fmt: skip

    def _want(self, routes: list[VersionRoute]) -> list[Session]:
        """Begin to open what lacks, and let go of the rest: the sessions to close. Of a version that still opens
        something nothing is let go of: what takes over must be open first."""
        wanted: set[Key] = set()
        unfinished: set[tuple[str, str]] = set()
        for route in routes:
            pins = (
                variant for variant in route.variants if Subject(route.name, route.version, variant) in self._pinned
            )
            for variant in map(route.variants.__getitem__, dict.fromkeys((*route.wanted, *pins))):
                wanted.add(key_of(variant))
                if self._openings.want(variant, route.signature, _warm_rows(route, variant)) is not None:
                    unfinished.add((route.name, route.version))
        return self._openings.keep(wanted, unfinished)

    def _with_sessions(self, route: VersionRoute) -> VersionRoute:
        able = (variant for variant in route.variants.values() if variant.id not in route.refused)
        sessions = {variant.id: session for variant in able if (session := self._openings.session(variant)) is not None}
        return limit(route.opened(sessions), self._overrides.get(route.name))

    def _before(self, version: ModelVersion | VersionRoute) -> VersionRoute | None:
        model = self._serving.table.models.get(version.name)
        return None if model is None else model.versions.get(version.version)

    def _retire(self, gone: dict[tuple[str, str], Batcher], sessions: list[Session]) -> None:
        """Close sessions nothing is routed to any more; of a deleted version, after what still waits for it."""
        for name, version in gone:
            self._serving.statistics.forget(name, version)
            self._serving.health.forget(name, version)
        for session in sessions:
            batcher = gone.get((session.subject.model, session.subject.version))
            if batcher is None:
                self._serving.runners.unload(session)
            else:
                self._retiring.append((batcher, session))

    def _unload_retired(self) -> None:
        for batcher, session in [pair for pair in self._retiring if pair[0].empty]:
            self._retiring.remove((batcher, session))
            self._serving.runners.unload(session)

    def _forget_idle_pins(self) -> bool:
        """Let go of variants that were opened for a pin nobody has used for long."""
        now = time.monotonic()
        for route in (r for model in self._serving.table.models.values() for r in model.versions.values()):
            for variant, session in route.sessions.items():
                subject = Subject(route.name, route.version, variant)
                if subject in self._pinned and session.last_used:
                    self._pinned[subject] = max(self._pinned[subject], session.last_used / 1e9)
        idle = [subject for subject, used in self._pinned.items() if now - used > PINNED_IDLE_S]
        for subject in idle:
            del self._pinned[subject]
        return bool(idle)

    def _publish_figures(self, variants: tuple[Variant, ...]) -> None:
        for variant in variants:
            key = key_of(variant)
            if key not in self._published:
                self._published.add(key)
                self._serving.metrics.proven(variant)


def _default(model: Model, routes: dict[str, VersionRoute]) -> str | None:
    """The version of requests that name none: the champion, else the newest that can answer."""
    if CHAMPION in model.aliases:
        return model.aliases[CHAMPION]
    return max(routes, key=int, default=None)


def _warm_rows(route: VersionRoute, variant: Variant) -> tuple[int, ...]:
    """One row for the reference, which must be up at once; for others also the buckets they win."""
    together = route.signature.has_batch_axis and variant.plan is not None and variant.plan.max_rows > 1
    if variant.id == REFERENCE or not together:
        return (1,)
    return tuple(sorted({1, *(bucket for bucket, ids in route.ranked.items() if ids and ids[0] == variant.id)}))

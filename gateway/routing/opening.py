"""Which variants are open in runners: opens what routing wants, keeps what it uses, closes the rest.

A variant that a runtime refuses is left out with the reason, and tried again after a while.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from gateway.routing.health import Subject
from gateway.running.runners import Runners
from gateway.running.session import LoadRefused, Session
from gateway.settings import Settings
from model_store.entities import REFERENCE, Artifact, Signature, Variant
from model_store.errors import BlobMissing
from model_store.store import ModelStore

TRY_AGAIN_S = 60.0
log = logging.getLogger("forgeway.follow")


class Key(NamedTuple):
    """One opened thing: a variant as it was built at one time, and planned to run."""

    subject: Subject
    built: tuple[str, ...]
    threads: int
    instances: int


class _Refusal(NamedTuple):
    text: str
    until: float


def key_of(variant: Variant) -> Key:
    files = variant.artifact.files if variant.artifact is not None else {}
    plan = variant.plan
    setting = (plan.threads, plan.instances) if plan is not None else (0, 1)
    return Key(Subject(variant.name, variant.version, variant.id), tuple(sorted(files.values())), *setting)


class Openings:
    """`changed` is called whenever something was opened or refused."""

    def __init__(self, store: ModelStore, runners: Runners, settings: Settings, changed: Callable[[], None]) -> None:
        self._store = store
        self._runners = runners
        self._settings = settings
        self._changed = changed
        self._open: dict[Key, Session] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._refused: dict[Key, _Refusal] = {}

    def session(self, variant: Variant) -> Session | None:
        """The open session of `variant`; while a newer build of it opens, that of the older one."""
        key = key_of(variant)
        if key in self._open:
            return self._open[key]
        return next((session for other, session in self._open.items() if other.subject == key.subject), None)

    def refused(self, variant: Variant) -> str | None:
        """Why it cannot be opened here, if so."""
        refusal = self._refused.get(key_of(variant))
        return None if refusal is None else refusal.text

    def want(self, variant: Variant, signature: Signature, warm: tuple[int, ...]) -> asyncio.Task[None] | None:
        """See to it that `variant` gets open; the task that opens it, None when it is open or refused."""
        key = key_of(variant)
        if key in self._open or self.refused(variant) is not None or variant.artifact is None:
            return None
        if key not in self._tasks:
            coroutine = self._bring_up(key, variant, variant.artifact, signature, warm)
            self._tasks[key] = asyncio.create_task(coroutine, name=f"open {' '.join(key.subject)}")
        return self._tasks[key]

    def keep(self, wanted: set[Key], unfinished: set[tuple[str, str]]) -> list[Session]:
        """Forget the sessions that are not wanted, but for those of unfinished versions; returns the forgotten."""
        unwanted = [key for key in self._open if key not in wanted and key.subject[:2] not in unfinished]
        return [self._open.pop(key) for key in unwanted]

    def stale(self) -> bool:
        """Whether a refusal is old enough to try again."""
        now = time.monotonic()
        due = [key for key, refusal in self._refused.items() if refusal.until < now]
        for key in due:
            del self._refused[key]
        return bool(due)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _bring_up(
        self, key: Key, variant: Variant, artifact: Artifact, signature: Signature, warm: tuple[int, ...]
    ) -> None:
        try:
            files = await asyncio.to_thread(self._store.artifact_paths, artifact)
            threads, instances = self._setting(variant)
            session = self._runners.load(
                variant.target,
                key.subject,
                files,
                artifact.options,
                signature,
                threads,
                warm,
                first=variant.id == REFERENCE,
                instances=instances,
            )
            try:
                await session.opened
            except asyncio.CancelledError:
                self._runners.unload(session)
                raise
            self._open[key] = session
            session.lost = lambda: self._lose(key)
        except (LoadRefused, BlobMissing) as exc:
            self._refuse(key, str(exc))
        finally:
            del self._tasks[key]
        self._changed()

    def _lose(self, key: Key) -> None:
        """A runner gave the session up: no route may hold it any more."""
        if self._open.pop(key, None) is not None:
            self._refuse(key, "the runner died twice while opening it")
            self._changed()

    def _refuse(self, key: Key, text: str) -> None:
        log.warning("%s cannot be opened: %s", " ".join(key.subject), text)
        self._refused[key] = _Refusal(text, time.monotonic() + TRY_AGAIN_S)

    def _setting(self, variant: Variant) -> tuple[int, int]:
        """Threads and instances: the plan's, unless the operator says how many threads: then one batch has them all."""
        if self._settings.threads is not None:
            return self._settings.threads, 1
        if variant.plan is None:
            return len(os.sched_getaffinity(0)), 1
        return variant.plan.threads, variant.plan.instances

"""The runners of this gateway, one per target, and the pump that hands them batches.

Versions with waiting requests take turns (gateway/batching/fairness.py). The pump runs at most once per tick of
the event loop, after everything that arrived in the tick was queued: that is what fills batches without a delay. When
requests have been coming one by one for a while there is no company to wait for: then it runs at once, and the answer
is waited for on the spot (`Runner.linger`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.batching.batcher import Batcher, late
from gateway.batching.fairness import Turns
from gateway.routing.health import Health, Subject
from gateway.routing.ranking import VersionRoute
from gateway.running import wire
from gateway.running.runner import Connect, Runner
from gateway.running.runner_process import run_child
from gateway.running.session import Session
from gateway.statistics import Statistics
from model_store.entities import Signature, TensorSpec

SWEEP_S = 0.025
WATCH_AFTER_NS = 50_000_000
"""A client is watched for leaving only once its request has waited this long: watching costs a task."""

ONE_BY_ONE = 16
"""Batches of one request in a row, nothing else about, after which the next one is expected to be alone as well."""

TRIM_S = 1.0
"""Also how often an idle gateway looks around: a sweep that finds nothing to do must not cost a core its sleep."""

log = logging.getLogger("forgeway.runner")


class Runners:
    """Starts a runner when its target is first needed. `on_death(target, cause)` is told of every death."""

    def __init__(
        self,
        slot_bytes: int,
        load_timeout_s: float,
        health: Health,
        on_death: Callable[[str, str], None] = lambda target, cause: None,
        statistics: Statistics | None = None,
        connect: Connect = run_child,
        crowded_s: float = 0.0,
    ) -> None:
        """`connect`, `crowded_s`: of every runner (runner.py)."""
        self.health = health
        self._statistics = statistics or Statistics()
        self._slot_bytes = slot_bytes
        self._load_timeout_s = load_timeout_s
        self._on_death = on_death
        self._connect, self._crowded_s = connect, crowded_s
        self._runners: dict[str, Runner] = {}
        self._numbers = itertools.count(1)
        self._waiting: Turns[Batcher] = Turns()
        self._loop = asyncio.get_running_loop()
        self._pump_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False
        self._alone = 0
        """Requests in a row that met nobody, waiting or running."""
        self._trimmed = time.monotonic()

    async def start(self, targets: tuple[str, ...] = ()) -> None:
        """Start sweeping, and the runners of `targets` at once."""
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        for target in targets:
            self.ensure(target)

    async def close(self) -> None:
        """Stop every runner and wait until they are gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*(runner.close() for runner in self._runners.values()))
        self._runners.clear()

    def get(self, target: str) -> Runner | None:
        return self._runners.get(target)

    def batcher(self, route: VersionRoute) -> Batcher:
        """A new queue for a version."""
        return Batcher(route, self.health, self.get, self._wake, self._statistics)

    def load(
        self,
        target: str,
        subject: Subject,
        files: Mapping[str, Path],
        options: Mapping[str, Any],
        signature: Signature,
        threads: int,
        warm: tuple[int, ...] = (1,),
        first: bool = False,
        instances: int = 1,
    ) -> Session:
        """Begin to open a variant; await `session.opened`. It opens again by itself in every new process."""
        load = wire.Load(
            session=next(self._numbers),
            files={name: str(path) for name, path in files.items()},
            options=dict(options),
            threads=threads,
            inputs=tuple(map(_warm_input, signature.inputs)),
            outputs=tuple(map(_warm_input, signature.outputs)),
            warm=warm,
            instances=instances,
        )
        session = Session(subject, load, target)
        self.ensure(target).load(session, first)
        return session

    def unload(self, session: Session) -> None:
        runner = self._runners.get(session.target)
        if runner is not None:
            runner.unload(session)

    def state(self) -> dict[str, dict[str, Any]]:
        """Facts per target: ready, pid, restarts, trouble, sessions, batches in flight."""
        return {
            target: {
                "ready": runner.ready,
                "pid": runner.pid,
                "restarts": runner.restarts,
                "trouble": runner.trouble,
                "sessions": len(runner.sessions),
                "inflight": runner.inflight,
            }
            for target, runner in self._runners.items()
        }

    def ensure(self, target: str) -> Runner:
        """The runner of a target, started if need be."""
        if target not in self._runners:
            runner = Runner(
                target, self._slot_bytes, self._load_timeout_s, self._schedule, self._on_death, self._connect,
                self._crowded_s,
            )  # fmt: skip
            self._runners[target] = runner
            runner.start()
        return self._runners[target]

    def _wake(self, batcher: Batcher, fresh: bool) -> None:
        alone = fresh and not self._waiting.waiting and not self._pump_scheduled and self._nothing_runs()
        self._alone = self._alone + 1 if alone else 0
        if batcher not in self._waiting.waiting:
            self._waiting.join(batcher)
        if self._resting and self._timer is not None:
            self._timer.cancel()
            self._sweep_again(SWEEP_S)
        if self._alone > ONE_BY_ONE:
            self._pump()
            self._linger()
        elif not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _nothing_runs(self) -> bool:
        for runner in self._runners.values():  # noqa: SIM110 - as below
            if runner.inflight:
                return False
        return True

    def _linger(self) -> None:
        for runner in self._runners.values():
            if runner.inflight:
                runner.linger()
                return

    def _schedule(self) -> None:
        if self._waiting and not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Hand out batches until nothing moves."""
        self._pump_scheduled = False
        self._waiting.hand_out(self._has_free_slot)

    def _has_free_slot(self) -> bool:
        for runner in self._runners.values():  # noqa: SIM110 - a generator would cost more than the rest
            if runner.has_free_slot:
                return True
        return False

    def _sweep(self) -> None:
        busy = bool(self._waiting) or any(runner.inflight for runner in self._runners.values())
        self._sweep_again(SWEEP_S if busy else TRIM_S)
        now = time.monotonic_ns()
        for batcher in self._waiting:
            batcher.sweep(now, now - WATCH_AFTER_NS)
            self._waiting.leave_if_empty(batcher)
        for runner in self._runners.values():
            for item in runner.items():
                if now > item.deadline_ns:
                    item.fail(late())
            runner.sweep()
        if time.monotonic() - self._trimmed > TRIM_S:
            self._trimmed = time.monotonic()
            for runner in self._runners.values():
                runner.trim()

    def _sweep_again(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._sweep)
        self._resting = seconds > SWEEP_S


def _warm_input(spec: TensorSpec) -> wire.WarmInput:
    return wire.WarmInput(spec.name, spec.datatype, spec.shape)

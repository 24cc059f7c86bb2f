"""Child processes of the gateway that run beside it: kept alive while it lives, ended with it.

A child that ends is started again after a pause that doubles (so a child that cannot start does not spin) and falls
back to the shortest one when the child has lived a while. Runners have their own supervision (runners.py), since
they hold requests; a child here holds leased work that another one can take over, or connections (gateway/fronts).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from gateway.logs import event
from model_store.sandbox import child_environment

FIRST_PAUSE_S, LONGEST_PAUSE_S, LIVED_S = 0.5, 30.0, 60.0


class Child:
    """`python -m module args...`, supervised. `pid` is None while it is down; `starts` counts its lives."""

    stdin = asyncio.subprocess.DEVNULL

    def __init__(
        self, name: str, module: str, args: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.pid: int | None = None
        self.starts = 0
        self.last = False
        """Whether it is not started again once it ends."""
        self._command = (sys.executable, "-m", "gateway.launch", str(os.getpid()), module, *args)
        self._environment = child_environment() | dict(environment or {})
        self._stopping: asyncio.Task[None] | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        self._supervision = asyncio.create_task(self._supervise(), name=f"child {self.name}")

    def stop_soon(self) -> None:
        """Begin `stop` without waiting for it."""
        self._stopping = asyncio.create_task(self.stop(), name=f"stop {self.name}")

    async def stop(self, patience_s: float = 5.0) -> None:
        """SIGTERM, then SIGKILL after `patience_s`. Does nothing when it is stopped already."""
        if self._supervision is None:
            if self._stopping is not None and self._stopping is not asyncio.current_task():
                await self._stopping
            return
        supervision, self._supervision = self._supervision, None
        supervision.cancel()
        await asyncio.gather(supervision, return_exceptions=True)
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        _signal(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), patience_s)
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()
        self.pid = None

    async def ended(self, patience_s: float) -> None:
        """Wait for the end of its last life, which somebody else has asked for; SIGKILL after `patience_s`."""
        if self._supervision is None:
            return
        done, _ = await asyncio.wait({self._supervision}, timeout=patience_s)
        if not done:
            if self._process is not None:
                _signal(self._process, signal.SIGKILL)
            await asyncio.wait({self._supervision}, timeout=patience_s)
        self._supervision.cancel()

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Begin a life."""
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=self.stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
        )

    def _died(self) -> None:
        """A life has ended."""

    async def _supervise(self) -> None:
        pause = FIRST_PAUSE_S
        while not self.last:
            started = time.monotonic()
            try:
                self._process = await self._spawn()
            except OSError as exc:  # no process or no descriptor is to be had: perhaps there is in a while
                event(logging.WARNING, "child not started", child=self.name, reason=str(exc), again_in_s=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            self.pid, self.starts = self._process.pid, self.starts + 1
            event(logging.INFO, "child started", child=self.name, pid=self.pid)
            await self._relay(self._process)
            code = await self._process.wait()
            self.pid = None
            self._died()
            lived = time.monotonic() - started
            if self.last:
                event(logging.INFO, "child ended", child=self.name, code=code, lived_s=round(lived, 1))
                return
            pause = FIRST_PAUSE_S if lived > LIVED_S else pause
            event(logging.WARNING, "child ended", child=self.name, code=code, lived_s=round(lived, 1), again_in_s=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _relay(self, process: asyncio.subprocess.Process) -> None:
        """What the child says becomes events: one stream, one format. Ends when the child's output does."""
        while process.stdout is not None:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line longer than the stream's limit: the rest of it comes as lines of its own
                continue
            if not line:
                return
            event(logging.INFO, line.decode("utf-8", "replace").rstrip(), child=self.name)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)

"""The compile worker of this gateway, and what it is told: whether requests are being answered.

A compilation has every core while nobody is served, and makes way from the moment somebody is (compilers/cores.py).
Each gateway process watches its own door and says when that changes; the worker is told of all of them together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from compilers.traffic import FLOWS, RESTS
from gateway.admission import Admission
from gateway.children import Child
from gateway.settings import Settings

LOOK_S = 0.05
LULL_S = 3.0
"""So long after the last request nobody is being served; whoever asks every second or two always is."""


class CompileWorker(Child):
    """`compilers.worker`, told on its standard input."""

    stdin = asyncio.subprocess.PIPE

    def __init__(self, settings: Settings) -> None:
        args = ["--data", str(settings.data.absolute()), "--beside-gateway"]
        super().__init__("worker", "compilers.worker", args, settings.catalog_environment())
        self._busy: set[str] = set()

    def tell(self, who: str, flows: bool) -> None:
        """A gateway process says whether requests come to it."""
        before = bool(self._busy)
        (self._busy.add if flows else self._busy.discard)(who)
        # While it is down nothing is said: its next life is told first of all.
        if bool(self._busy) != before and self.pid is not None and self._process is not None:
            self._say(self._process)

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await super()._spawn()
        self._say(process)
        return process

    def _say(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        process.stdin.write(FLOWS if self._busy else RESTS)


async def watch(admission: Admission, tell: Callable[[bool], None]) -> None:
    """Tell when requests begin to come in through a door, and when none came for a while. Ends only by cancellation."""
    seen, last, flows = admission.entered, -LULL_S, False
    while True:
        await asyncio.sleep(LOOK_S)
        now = time.monotonic()
        if admission.entered != seen or admission.inflight:
            seen, last = admission.entered, now
        if (now - last < LULL_S) is not flows:
            flows = not flows
            tell(flows)

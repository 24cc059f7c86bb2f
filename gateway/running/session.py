"""A variant as a runner holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.routing.health import Subject
from gateway.routing.latency import Latency
from gateway.running import wire


class LoadRefused(Exception):
    """The runtime cannot open this variant, or the runner died twice while it tried."""


class Session:
    """Wanted from `Runner.load` to `unload`; `ready` while it can run."""

    def __init__(self, subject: Subject, load: wire.Load, target: str) -> None:
        self.subject = subject
        self.load = load
        self.target = target
        self.ready = False
        self.closed = False
        self.last_used = 0
        self.live = Latency()
        self.deaths_at_load = 0
        self.suspected_until_ns = 0
        """Until then it runs where nothing else does: it may have killed a runner (blame.py)."""
        self.lost: Callable[[], None] = _nothing
        """Called when an open session is given up: it cannot be opened again."""
        self.opened: asyncio.Future[wire.Loaded] = asyncio.get_running_loop().create_future()

    def instances(self, now_ns: int) -> int:
        """How many batches may run while one of it does."""
        return 1 if now_ns < self.suspected_until_ns else self.load.instances

    def give_up(self, text: str) -> None:
        """It cannot be opened: whoever awaits `opened` is told."""
        self.closed = True
        if not self.opened.done():
            self.opened.set_exception(LoadRefused(text))
            self.opened.exception()  # whoever awaits it sees it; nobody has to
        self.lost()


def _nothing() -> None:
    """Nobody asked to be told."""

"""The catalog may be away for a moment (a restart, a lock held long): a job half done waits for it instead of failing.

Only what the database itself reports as its own trouble is waited out; everything else is somebody's answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError

log = logging.getLogger(__name__)

T = TypeVar("T")

AWAY = (OperationalError, InterfaceError)


def patiently(call: Callable[[], T], seconds: float = 30.0) -> T:
    """Make a call to the catalog, again with growing pauses while its database is away; then the error leaves."""
    deadline, pause = time.monotonic() + seconds, 0.05
    while True:
        try:
            return call()
        except AWAY as exc:
            if time.monotonic() + pause > deadline:
                raise
            log.warning("the catalog does not answer, trying again in %.2f s: %s", pause, exc.orig)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

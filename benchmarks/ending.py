"""A benchmark that is told to end stops what it started: SIGTERM unwinds like Ctrl-C does."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def unwind_on_sigterm() -> None:
    """Servers run in sessions of their own and would go on without us."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)

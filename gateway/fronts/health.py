"""Deaths that a variant is to blame for count in every process, whichever saw it: two are two, wherever they fell."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from gateway.routing.health import FIRST_S, Health, Subject

_REMEMBERED = 64


class CommonHealth(Health):
    """`tell(subject, cause)` carries what this process saw to the others."""

    def __init__(self, tell: Callable[[Subject, str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._deaths_seen: deque[tuple[float, Subject, str]] = deque(maxlen=_REMEMBERED)

    def died(self, subject: Subject, cause: str) -> bool:
        self._tell(subject, cause)
        return self.heard(subject, cause)

    def heard(self, subject: Subject, cause: str) -> bool:
        """Another process saw it."""
        self._deaths_seen.append((time.monotonic(), subject, cause))
        return super().died(subject, cause)

    def recent(self) -> list[tuple[Subject, str]]:
        """Deaths of the last minute, for a process that begins now: what is set aside here is so there, too."""
        since = time.monotonic() - FIRST_S
        return [(subject, cause) for at, subject, cause in self._deaths_seen if at > since]

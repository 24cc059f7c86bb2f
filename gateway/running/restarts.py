"""When to start a process again that died: at once, or after a growing pause when it dies before it is ready."""

from __future__ import annotations

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_BROKEN_STARTS = 3


class Restarts:
    """Of one kind of process."""

    __slots__ = ("_failed_starts", "_what", "count", "trouble")

    def __init__(self, what: str) -> None:
        self._what = what
        self._failed_starts = 0
        self.count = 0
        self.trouble = ""
        """Why it cannot start, once several processes died before they were ready."""

    def ready(self) -> None:
        self.trouble, self._failed_starts = "", 0

    def died(self, was_ready: bool, words: str) -> float:
        """Seconds until the next start. `words`: how it died."""
        self.count += 1
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        if self._failed_starts >= _BROKEN_STARTS:
            self.trouble = f"{self._what} {words} {self._failed_starts} times before it was ready"
        return 0.0 if was_ready else min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (self._failed_starts - 1))

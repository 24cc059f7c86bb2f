"""Deaths that a variant is to blame for count in every process, whichever saw it: two are two, wherever they fell."""

from __future__ import annotations

from collections.abc import Callable

from gateway.health import Health, Subject


class CommonHealth(Health):
    """`tell(subject, cause)` carries what this process saw to the others."""

    def __init__(self, tell: Callable[[Subject, str], None]) -> None:
        super().__init__()
        self._tell = tell

    def died(self, subject: Subject, cause: str) -> bool:
        self._tell(subject, cause)
        return super().died(subject, cause)

    def heard(self, subject: Subject, cause: str) -> None:
        """Another process saw it."""
        super().died(subject, cause)

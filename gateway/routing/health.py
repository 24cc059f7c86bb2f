"""Which variants may answer: a variant that keeps killing its runner is set aside for a while.

Two deaths within a minute quarantine (model version, variant) for 60 s, and twice as long each time it happens again;
the router then takes the next variant, for a slower variant beats an error.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

DEATHS = 2
WINDOW_S = 60.0
FIRST_S = 60.0
LONGEST_S = 3600.0


class Subject(NamedTuple):
    """What is judged: one variant of one model version."""

    model: str
    version: str
    variant: str


class Health:
    """Deaths and quarantines by subject. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deaths: dict[Subject, deque[tuple[float, str]]] = {}
        self._until: dict[Subject, float] = {}
        self._sentence: dict[Subject, float] = {}

    def died(self, subject: Subject, cause: str) -> bool:
        """Note that `subject` killed a runner; True when that puts it in quarantine."""
        now = self._clock()
        deaths = self._deaths.setdefault(subject, deque(maxlen=DEATHS))
        deaths.append((now, cause))
        if len(deaths) < DEATHS or now - deaths[0][0] > WINDOW_S:
            return False
        sentence = min(LONGEST_S, 2 * self._sentence[subject]) if subject in self._sentence else FIRST_S
        self._sentence[subject] = sentence
        self._until[subject] = now + sentence
        deaths.clear()
        return True

    def quarantined(self, subject: Subject) -> bool:
        if not self._until or subject not in self._until:
            return False
        if self._clock() < self._until[subject]:
            return True
        del self._until[subject]
        return False

    def seconds_left(self, subject: Subject) -> float:
        """How long `subject` stays in quarantine; 0 when it is not."""
        return max(0.0, self._until.get(subject, 0.0) - self._clock())

    def words(self, subject: Subject) -> str:
        """`healthy`, or since when and why it is not."""
        if self.quarantined(subject):
            return f"quarantined for {self.seconds_left(subject):.0f} s more: it killed {DEATHS} runners in a minute"
        deaths = self._deaths.get(subject)
        if deaths and self._clock() - deaths[-1][0] <= WINDOW_S:
            return f"killed a runner {self._clock() - deaths[-1][0]:.0f} s ago ({deaths[-1][1]})"
        return "healthy"

    def forget(self, model: str, version: str) -> None:
        """Drop what is known of a deleted version."""
        for table in (self._deaths, self._until, self._sentence):
            for subject in [s for s in table if s.model == model and s.version == version]:
                del table[subject]

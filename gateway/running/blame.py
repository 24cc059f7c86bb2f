"""Who is to blame when a runner dies: told from what it was doing, and never guessed.

Only what ran can have killed it; what was prefetched stood by. Of batches that ran side by side nobody can say which
one it was: each is a suspect, tried again where nothing else runs. A death counts against a variant only when no other
one ran. Two that fell together therefore run alone for a while (`SUSPECTED_NS`): the next death then tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from gateway.routing.health import Subject

SUSPECTED_NS = 60_000_000_000
"""As long as deaths count together (gateway/routing/health.py)."""


class Part(StrEnum):
    """What a batch has to do with the death of its runner.

    culprit: it ran, and the death counts against its variant. suspect: it ran beside others. bystander: it waited.
    """

    CULPRIT = "culprit"
    SUSPECT = "suspect"
    BYSTANDER = "bystander"


def parts(subjects: Sequence[Subject], begun: int) -> list[Part]:
    """The part of each batch, by its variant, oldest first; `begun` of them ran. One death counts once."""
    ran = subjects[:begun]
    told = [Part.CULPRIT if len(set(ran)) == 1 else Part.SUSPECT] if ran else []
    return told + [Part.SUSPECT] * (len(ran) - 1) + [Part.BYSTANDER] * (len(subjects) - len(ran))

"""What one measurement says, and what several rounds of it say together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figures:
    """`rate`: answers a second. Quantiles in seconds. `variants`: answers by variant, where answers name one."""

    rate: float
    p50_s: float
    p90_s: float
    p99_s: float
    count: int
    errors: int = 0
    variants: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, seconds: Sequence[float], rate: float, errors: int = 0, variants: Mapping[str, int] | None = None
    ) -> Figures:
        if len(seconds) < 2:
            raise ValueError(f"{len(seconds)} answers are too few to say anything; measure for longer")
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        return cls(rate, cuts[49], cuts[89], cuts[98], len(seconds), errors, variants or {})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    """Median over the rounds, with the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str = ".2f", scale: float = 1.0) -> str:
        low, mid, high = (format(value * scale, form) for value in (self.least, self.median, self.greatest))
        return mid if low == high else f"{mid} ({low}-{high})"


def ratios(above: Sequence[Figures], below: Sequence[Figures], what: str = "rate") -> Spread:
    """Round by round, so that a drift of the machine hits both sides of each ratio."""
    return Spread.over([getattr(a, what) / getattr(b, what) for a, b in zip(above, below, strict=True)])

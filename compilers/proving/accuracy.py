"""Accuracy control: a candidate that clearly fails, or clearly passes, is told apart on the first samples.

Looking several times at growing samples would find false winners if each look claimed 95 %. So the early looks ask
for three-and-a-third standard errors (one in a thousand), which leaves the last one its 95 % (Haybittle 1971, Peto et
al. 1976). What is not clear at a look goes on; the verdict on all samples is the gate's.

An early *pass* only ranks candidates against one another: whatever is published was judged on every sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import numpy as np

from compilers import intervals
from compilers.proving.compare import Comparison, PerSample
from compilers.proving.gate import Bounds, Finding

LOOKS = (64, 256)
EARLY_Z = 3.290526731491926
"""Two-sided one in a thousand."""

KEPT_DISTANCE = 0.5
"""A first percentile of cosine cannot be bounded by few samples: it passes early when the worst sample seen keeps twice
the distance."""

TAIL = 0.01


class Until(StrEnum):
    """What ends a comparison early."""

    FAILED = "failed"
    DECIDED = "decided"


def next_look(samples: int) -> int | None:
    """The look that comes after `samples` samples; None: the next one is the last."""
    return next((look for look in LOOKS if look > samples), None)


def clear(comparison: Comparison, bounds: Bounds) -> Finding | None:
    """What the samples so far decide beyond reasonable doubt: FAILED, PASSED, or None."""
    found = list(_findings(comparison.per_sample(), bounds))
    if Finding.FAILED in found:
        return Finding.FAILED
    return Finding.PASSED if found and all(finding is Finding.PASSED for finding in found) else None


def _findings(seen: PerSample, bounds: Bounds) -> Iterable[Finding | None]:
    if bounds.sqnr_db is not None:
        yield _mean(seen.sqnr, least=bounds.sqnr_db) if seen.continuous else None
    if bounds.cosine is not None:
        yield _tail(seen.cosine, bounds.cosine) if seen.continuous else None
    if bounds.top1 is not None:
        if seen.same_top is not None:
            yield _mean(seen.same_top.astype(np.float64), least=bounds.top1)
        elif bounds.given:
            yield None
    if bounds.max_drop is not None:
        if seen.drop is not None:
            yield _mean(seen.drop, most=bounds.max_drop)
        elif bounds.given:
            yield None
    if bounds.metric_least is not None or bounds.metric_most is not None:
        yield None if seen.metric is None else _mean(seen.metric, bounds.metric_least, bounds.metric_most)


def _mean(values: np.ndarray, least: float | None = None, most: float | None = None) -> Finding | None:
    _, lower, upper = intervals.mean(values, EARLY_Z)
    if least is not None:
        return Finding.FAILED if upper < least else Finding.PASSED if lower >= least else None
    assert most is not None
    return Finding.FAILED if lower > most else Finding.PASSED if upper <= most else None


def _tail(cosine: np.ndarray, bound: float) -> Finding | None:
    """FAILED when surely more than a hundredth lies below the bound."""
    below = int((cosine < bound).sum())
    if intervals.wilson(below, len(cosine), EARLY_Z)[0] > TAIL:
        return Finding.FAILED
    return Finding.PASSED if 1 - cosine.min() <= KEPT_DISTANCE * (1 - bound) else None

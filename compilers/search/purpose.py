"""Whether a search around a candidate can still pay, and what must be beaten: decided from evidence, told in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from compilers import words
from compilers.proving import gate
from compilers.proving.gate import Bounds
from model_store.entities import Variant, Verdict
from model_store.policy import Policy

LITTLE = 1.5
"""A win below this is worth tuning: where int8 kernels are used throughout, they win more."""

NOTICED_S = 500e-6
"""A model that answers sooner, at any batch size that was measured, is not worth minutes of tuning: no caller would
notice what is left to gain."""

TIMED = ("latency", "throughput")


class Purpose(StrEnum):
    RESCUE = "rescue"
    TUNE = "tune"


def purpose_of(variant: Variant, policy: Policy, bounds: Bounds) -> tuple[Purpose | None, str]:
    """What a search around this candidate, which is held to `bounds`, is for, or None; and why, in words."""
    if policy.search.effort == "off" or not policy.budget_trials:
        return None, "no search: the policy asks for none"
    agreement = variant.evidence.agreement if variant.evidence else None
    timings = variant.evidence.timings if variant.evidence else ()
    if variant.verdict in (Verdict.REJECTED, Verdict.INCONCLUSIVE):
        if agreement is None:
            return None, "no search: it could not be compared with the reference at all"
        if agreement.samples < gate.LEAST_SAMPLES:
            return None, f"no search: {agreement.samples} validation samples prove nothing, whatever the recipe"
        if not gate.provable(agreement, bounds):
            few = f"{agreement.samples} validation samples are too few to prove the top-1 agreement that is asked"
            return None, f"no search: {few}, whatever the recipe"
        return Purpose.RESCUE, "searching for a recipe that keeps the gate"
    won = together(speedups(variant, policy.rows_of(policy.objective)))
    gain = words.times(won)
    if policy.search.effort == "full":
        return Purpose.TUNE, f"searching on (it gains {gain}): the policy asks for full effort"
    if variant.verdict is Verdict.ELIGIBLE:
        return None, f"no search: right but not faster ({gain}), and calibration makes no kernel faster"
    if max((timing.reference_p50_s for timing in timings), default=0.0) < NOTICED_S:
        return None, f"no search: right, it gains {gain}, and the reference takes but microseconds"
    if won < LITTLE and policy.objective in TIMED:
        return Purpose.TUNE, f"searching on: it gains only {gain}"
    return None, f"no search: right, and it gains {gain}"


def speedups(variant: Variant | None, rows: Iterable[int]) -> dict[int, float]:
    """Rows -> as measured there, or at the nearest number of rows that was; 1 where nothing was, and never less:
    what is slower than the reference in a bucket does not answer there."""
    timings = variant.evidence.timings if variant is not None and variant.evidence else ()
    found = {}
    for count in rows:
        nearest = min(timings, key=lambda timing: max(timing.rows / count, count / timing.rows), default=None)
        found[count] = 1.0 if nearest is None else max(1.0, nearest.speedup)
    return found


def together(ratios: Mapping[int, float]) -> float:
    """One figure for several batch sizes: the geometric mean."""
    return math.exp(sum(math.log(ratio) for ratio in ratios.values()) / len(ratios))


def serving_speedups(variants: Iterable[Variant], rows: Sequence[int]) -> dict[int, float]:
    """Rows -> what the fastest variant that serves there gains over the reference; 1 for the reference itself."""
    tables = [speedups(variant, rows) for variant in variants if variant.verdict is Verdict.SERVING]
    return {count: max((table[count] for table in tables), default=1.0) for count in rows}

"""Whether a search around a candidate can still pay, and what must be beaten: decided from evidence, told in words."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from compilers import gate, words
from model_store.entities import REFERENCE, Variant, Verdict
from model_store.policy import Policy

LITTLE = 1.5
"""A win below this is worth tuning: where int8 kernels are used throughout, they win more."""

TIMED = ("latency", "throughput")


class Purpose(StrEnum):
    RESCUE = "rescue"
    TUNE = "tune"


def purpose_of(variant: Variant, policy: Policy) -> tuple[Purpose | None, str]:
    """What a search around this candidate is for, or None; and why, in words."""
    if policy.search.effort == "off" or not policy.budget_trials:
        return None, "no search: the policy asks for none"
    agreement = variant.evidence.agreement if variant.evidence else None
    if variant.verdict in (Verdict.REJECTED, Verdict.INCONCLUSIVE):
        if agreement is None:
            return None, "no search: it could not be compared with the reference at all"
        if agreement.samples < gate.LEAST_SAMPLES:
            return None, f"no search: {agreement.samples} validation samples prove nothing, whatever the recipe"
        return Purpose.RESCUE, "searching for a recipe that keeps the gate"
    won = speedup(variant, policy.rows_of(policy.objective))
    gain = "nothing measured" if won is None else words.times(won)
    if policy.search.effort == "full":
        return Purpose.TUNE, f"searching on (it gains {gain}): the policy asks for full effort"
    if variant.verdict is Verdict.ELIGIBLE:
        return None, f"no search: right but not faster ({gain}), and calibration makes no kernel faster"
    if won is not None and won < LITTLE and policy.objective in TIMED:
        return Purpose.TUNE, f"searching on: it gains only {gain}"
    return None, f"no search: right, and it gains {gain}"


def speedup(variant: Variant, rows: int) -> float | None:
    """As measured at `rows`, or at the nearest number of rows that was."""
    timings = variant.evidence.timings if variant.evidence else ()
    nearest = min(timings, key=lambda timing: max(timing.rows / rows, rows / timing.rows), default=None)
    return None if nearest is None else nearest.speedup


def best_serving(variants: Iterable[Variant], rows: int) -> Variant | None:
    """The fastest variant that serves at `rows`; None: only the reference does."""
    serving = [v for v in variants if v.verdict is Verdict.SERVING and v.id != REFERENCE]
    return max(serving, key=lambda variant: speedup(variant, rows) or 0.0, default=None)

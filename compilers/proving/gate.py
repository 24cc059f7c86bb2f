"""The gate: which figures of agreement a variant must keep to count as right, and what is said when it does not.

Defaults by precision (COMPILING: "Accuracy gate without labels"); a gate in the policy replaces them as a whole. A
bound that the samples are too few to prove or to exclude makes the variant *inconclusive*, never right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from compilers import intervals
from model_store.entities import Agreement

if TYPE_CHECKING:
    from model_store.policy import Gate  # and with it pydantic, for which no child that compares has any use

LEAST_SAMPLES = 20
"""Below this a first percentile is one sample's luck: a lossy variant is not proven, whatever its figures."""

MAX_DROP = 0.01


@dataclass(frozen=True, slots=True)
class Bounds:
    """What must hold; None: not asked. `cosine` is the first percentile over the samples, `top1` the Wilson bound."""

    sqnr_db: float | None = None
    cosine: float | None = None
    top1: float | None = None
    max_drop: float | None = None
    lossy: bool = True
    given: bool = False
    metric_least: float | None = None
    metric_most: float | None = None


DEFAULTS: dict[str, Bounds] = {
    "f32": Bounds(sqnr_db=60.0, cosine=0.99999, lossy=False),
    "fp16": Bounds(sqnr_db=40.0, cosine=0.9999, top1=0.985, max_drop=MAX_DROP),
    "bf16": Bounds(sqnr_db=30.0, cosine=0.999, top1=0.985, max_drop=MAX_DROP),
    "int8": Bounds(sqnr_db=20.0, cosine=0.985, top1=0.98, max_drop=MAX_DROP),
}


class Finding(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Judgement:
    finding: Finding
    reason: str


def bounds_for(precision: str, gate: Gate, *, lossless: bool) -> Bounds:
    """The policy's gate where one is given, else the defaults of `precision` (unknown ones count as int8)."""
    if gate.given:
        least, most = (None, None) if gate.metric is None else (gate.metric.least, gate.metric.most)
        return Bounds(gate.sqnr_db, gate.cosine, gate.top1, gate.max_drop, not lossless, True, least, most)
    return DEFAULTS["f32"] if lossless else DEFAULTS.get(precision, DEFAULTS["int8"])


def judge(agreement: Agreement, bounds: Bounds) -> Judgement:
    """Hold the figures against the bounds: one that fails decides, then one that is open, else all hold."""
    findings = [check(agreement, bounds) for check in _CHECKS]
    told = [finding for finding in findings if finding is not None]
    for decisive in (Finding.FAILED, Finding.INCONCLUSIVE):
        reasons = [judgement.reason for judgement in told if judgement.finding is decisive]
        if reasons:
            return Judgement(decisive, "; ".join(reasons))
    return Judgement(Finding.PASSED, describe(agreement))


def provable(agreement: Agreement, bounds: Bounds) -> bool:
    """Whether as many samples could prove the bounds, if the answers were those of the reference."""
    if bounds.top1 is None or agreement.top1 is None:
        return True
    return intervals.wilson(agreement.samples, agreement.samples)[0] >= bounds.top1


def violation(agreement: Agreement, bounds: Bounds) -> float:
    """How far the figures lie beyond the worst of the bounds, in tens of decibels of error; negative inside.

    Point estimates, so that candidates on few samples compare with those on many; it ranks and never decides.
    """
    beyond = []
    if bounds.sqnr_db is not None:
        beyond.append((bounds.sqnr_db - agreement.sqnr_db) / 10)
    if bounds.cosine is not None:
        beyond.append(_times_worse(1 - agreement.cosine_p1, 1 - bounds.cosine))
    if bounds.top1 is not None and agreement.top1 is not None:
        beyond.append(_times_worse(1 - agreement.top1, 1 - bounds.top1))
    if bounds.max_drop is not None and agreement.label_accuracy is not None:
        drop = (agreement.reference_label_accuracy or 0.0) - agreement.label_accuracy
        beyond.append(_times_worse(max(drop, 0.0), bounds.max_drop))
    if agreement.metric is not None:
        for bound, sign in ((bounds.metric_least, 1), (bounds.metric_most, -1)):
            if bound is not None:
                beyond.append(sign * (bound - agreement.metric) / max(abs(bound), 1e-9))
    return max((min(max(each, -20.0), 20.0) for each in beyond), default=-20.0)


def _times_worse(error: float, allowed: float) -> float:
    return math.log10(max(error, 1e-9) / max(allowed, 1e-9))


def describe(agreement: Agreement) -> str:
    """The figures in words: "cosine 0.9996, top-1 agreement 99.7 % (at least 99.0 %) on 700 samples"."""
    parts = [f"cosine {ratio(agreement.cosine)}", f"{agreement.sqnr_db:.0f} dB"]
    if all(output.max_abs_error == 0 for output in agreement.outputs.values()) and agreement.outputs:
        return f"equal bit for bit on {agreement.samples} samples"
    if agreement.top1 is not None and agreement.top1_lower is not None:
        parts.append(f"top-1 agreement {percent(agreement.top1)} (at least {percent(agreement.top1_lower)})")
    if agreement.label_accuracy is not None and agreement.reference_label_accuracy is not None:
        parts.append(
            f"accuracy {percent(agreement.label_accuracy)} against {percent(agreement.reference_label_accuracy)}"
        )
    if agreement.metric is not None:
        parts.append(f"the policy's metric {agreement.metric:.4g}")
    return f"{', '.join(parts)} on {agreement.samples} samples"


def percent(share: float) -> str:
    """98.97 % never reads as 99.0 %: rounded down, so that a figure in words claims no more than was measured."""
    return f"{math.floor(share * 1000 + 1e-6) / 10:.1f} %"


def ratio(value: float) -> str:
    return (
        f"{value:.4f}" if value < 0.99995 else f"{math.floor(value * 1e6 + 1e-3) / 1e6:.6f}".rstrip("0").ljust(6, "0")
    )


def _sqnr(agreement: Agreement, bounds: Bounds) -> Judgement | None:
    if bounds.sqnr_db is None or agreement.sqnr_db >= bounds.sqnr_db:
        return None
    return Judgement(
        Finding.FAILED,
        f"signal-to-noise ratio {agreement.sqnr_db:.1f} dB, the gate asks {bounds.sqnr_db:g} dB "
        f"(worst sample: {agreement.worst_sample})",
    )


def _cosine(agreement: Agreement, bounds: Bounds) -> Judgement | None:
    if bounds.cosine is None or agreement.cosine_p1 >= bounds.cosine:
        return None
    return Judgement(
        Finding.FAILED,
        f"cosine {agreement.cosine_p1:.6g} in the worst hundredth of the samples, the gate asks {bounds.cosine:g} "
        f"(worst sample: {agreement.worst_sample})",
    )


def _top1(agreement: Agreement, bounds: Bounds) -> Judgement | None:
    if bounds.top1 is None:
        return None
    if agreement.top1 is None or agreement.top1_lower is None:
        if not bounds.given:
            return None  # no output names classes: the default asks it only of classifiers
        return Judgement(Finding.INCONCLUSIVE, "the gate asks top-1 agreement, and no output names classes")
    if agreement.top1_lower >= bounds.top1:
        return None
    figures = (
        f"top-1 agreement {percent(agreement.top1)} (at least {percent(agreement.top1_lower)}) "
        f"on {agreement.samples} samples, the gate asks at least {percent(bounds.top1)}"
    )
    if intervals.wilson(agreement.top1 * agreement.samples, agreement.samples)[1] < bounds.top1:
        return Judgement(Finding.FAILED, figures)
    return Judgement(Finding.INCONCLUSIVE, figures + _needed_for(agreement.top1, bounds.top1))


def _labels(agreement: Agreement, bounds: Bounds) -> Judgement | None:
    if bounds.max_drop is None:
        return None
    if agreement.label_accuracy is None or agreement.reference_label_accuracy is None:
        if not bounds.given:
            return None
        return Judgement(Finding.INCONCLUSIVE, "the gate asks a greatest drop, and the samples hold no integer labels")
    drop = agreement.reference_label_accuracy - agreement.label_accuracy
    if drop <= bounds.max_drop + 1e-9:
        return None
    upper = drop if agreement.label_drop_upper is None else agreement.label_drop_upper
    lower = 2 * drop - upper
    figures = (
        f"accuracy falls by {100 * drop:.1f} points (95 % interval {100 * lower:.1f} to {100 * upper:.1f}), "
        f"the gate allows {100 * bounds.max_drop:g}"
    )
    if lower > bounds.max_drop:
        return Judgement(Finding.FAILED, figures)
    enough = math.ceil(agreement.samples * ((upper - drop) / (drop - bounds.max_drop)) ** 2)
    return Judgement(Finding.INCONCLUSIVE, f"{figures}; about {enough} validation samples would settle it")


def _metric(agreement: Agreement, bounds: Bounds) -> Judgement | None:
    bound, sign = (bounds.metric_least, 1) if bounds.metric_most is None else (bounds.metric_most, -1)
    if bound is None:
        return None
    if agreement.metric is None or agreement.metric_lower is None or agreement.metric_upper is None:
        return Judgement(Finding.INCONCLUSIVE, "the gate asks the policy's metric, and it was not taken")
    ends = (agreement.metric_lower, agreement.metric_upper)
    surely, perhaps = ends if sign > 0 else ends[::-1]
    if sign * surely >= sign * bound:
        return None
    figures = (
        f"the policy's metric is {agreement.metric:.4g} (95 % interval {ends[0]:.4g} to {ends[1]:.4g}) on "
        f"{agreement.samples} samples, the gate asks at {'least' if sign > 0 else 'most'} {bound:g}"
    )
    if sign * perhaps < sign * bound:
        return Judgement(Finding.FAILED, figures)
    distance, half = abs(agreement.metric - bound), abs(agreement.metric - surely)
    if distance == 0 or not math.isfinite(half / distance):
        return Judgement(Finding.INCONCLUSIVE, figures + "; neither proven nor excluded")
    enough = max(agreement.samples + 1, math.ceil(agreement.samples * (half / distance) ** 2))
    return Judgement(Finding.INCONCLUSIVE, f"{figures}; about {enough} validation samples would settle it")


def _enough(agreement: Agreement, bounds: Bounds) -> Judgement | None:
    if not bounds.lossy or agreement.samples >= LEAST_SAMPLES:
        return None
    return Judgement(
        Finding.INCONCLUSIVE, f"{agreement.samples} validation samples are too few: at least {LEAST_SAMPLES} are needed"
    )


def _needed_for(share: float, bound: float) -> str:
    try:
        needed = intervals.trials_needed(share, bound)
    except ValueError:
        return "; neither proven nor excluded"
    return f"; {'at this rate ' if share < 1 else ''}{needed} validation samples would settle it"


_CHECKS: tuple[Callable[[Agreement, Bounds], Judgement | None], ...] = (
    _sqnr,
    _cosine,
    _top1,
    _labels,
    _metric,
    _enough,
)

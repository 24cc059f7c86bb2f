"""What a run takes by its number of rows, as it was measured, and up to which number of rows gathering more still pays.

Pure functions of a variant's Plan and Evidence. The reference has no timings of its own: every variant was timed in
turns with it, so its curve is the median of what the others were held against.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from model_store.entities import REFERENCE, Variant

PAYS = 1.03
"""A larger batch pays when it answers this many times as many rows a second: the margin of a win elsewhere."""

HOP_S = 100e-6
"""What a batch costs beside its run: the way to the runner and back, and the turn of the queue."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Measured points (rows, seconds of a run), ascending by rows, at least one."""

    points: tuple[tuple[int, float], ...]

    def seconds(self, rows: int) -> float:
        """Straight lines between the points; fewer rows than the first cost as much, beyond the last each as much."""
        points = self.points
        at = bisect_left(points, (rows, 0.0))
        if at == 0:
            return points[0][1]
        if at == len(points):
            last, seconds = points[-1]
            return seconds * rows / last
        (low, low_s), (high, high_s) = points[at - 1], points[at]
        return low_s + (high_s - low_s) * (rows - low) / (high - low)


def measured(variant: Variant, others: Iterable[Variant]) -> Curve | None:
    """The curve of `variant`: of its plan where one was measured, else of its evidence; None without any figure."""
    plan = variant.plan
    if plan is not None and plan.curve:
        setting = (plan.threads, plan.instances)
        planned = {point.rows: point.p50_s for point in plan.curve if (point.threads, point.instances) == setting}
        if planned:
            return Curve(tuple(sorted(planned.items())))
    found: dict[int, list[float]] = {}
    if variant.id == REFERENCE:
        for timing in (t for other in others if other.evidence is not None for t in other.evidence.timings):
            found.setdefault(timing.rows, []).append(timing.reference_p50_s)
    elif variant.evidence is not None:
        found = {timing.rows: [timing.p50_s] for timing in variant.evidence.timings}
    return Curve(tuple((rows, median(found[rows])) for rows in sorted(found))) if found else None


def paying(curve: Curve) -> tuple[int, ...]:
    """The measured numbers of rows up to which gathering more pays, ascending."""
    rates = [(rows, rows / (seconds + HOP_S)) for rows, seconds in curve.points]
    kept = [rates[0]]
    for point, larger in pairwise(rates):
        if larger[1] < PAYS * point[1]:
            break
        kept.append(larger)
    return tuple(rows for rows, _ in kept)


def most_rows(variant: Variant, others: Sequence[Variant], default: int) -> int:
    """Most rows that are gathered into a batch of `variant`; `default` without a plan. 1: none are put together.

    The plan's largest bucket if it has any; else where the measured curve stops paying; where it was not seen to stop,
    as many as the plan allows.
    """
    plan = variant.plan
    if plan is None or plan.max_rows == 1:
        return default if plan is None else 1
    if plan.buckets:
        return min(plan.buckets[-1], plan.max_rows)
    curve = measured(variant, others)
    if curve is None:
        return plan.max_rows
    last = paying(curve)[-1]
    return plan.max_rows if last == curve.points[-1][0] else min(last, plan.max_rows)

"""Which variant of one version answers: ranked by evidence, chosen among those that are open and healthy.

For every bucket of rows that was measured, the variants *proven* faster than the reference in that bucket (the lower
end of the interval says so) come first, then the reference, then the rest: what won elsewhere is never slower here. The
policy's objective orders those that are proven: by speed-up in the bucket (latency), by speed-up in the largest bucket
(throughput), by bytes (size) or by peak memory (memory). The incumbent keeps its place unless another is more than 3 %
faster, so that noise moves nobody. A batch is answered by the best variant that is open and healthy right now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from gateway.errors import BadRequest
from gateway.routing.curve import measured, most_rows
from gateway.running.session import Session
from model_store.entities import REFERENCE, Signature, Timing, Variant, Verdict

HYSTERESIS = 1.03
DEFAULT_MAX_ROWS = 64
MOST_ROWS = 4096
"""Most rows of one request to a model that batches: what such a model reports as its `max_batch_size`."""


class Choice(NamedTuple):
    """A variant for a batch. `why` is a metric label: fastest, only, fallback, pinned; or live, tried, overflow, as
    forecast.py decides."""

    variant: str
    session: Session
    why: str


@dataclass(frozen=True)
class VersionRoute:
    """How one model version is answered."""

    name: str
    version: str
    signature: Signature
    variants: Mapping[str, Variant]
    """Every variant of the version with its evidence, also those that never answer."""
    buckets: tuple[int, ...]
    ranked: Mapping[int, tuple[str, ...]]
    """Bucket -> ids of the variants that may answer there, best first; the reference is always among them."""
    serve_unproven: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    """Variants that could not be opened here -> what the runtime said."""
    sessions: Mapping[str, Session] = field(default_factory=dict)
    """Variants that are open, or being opened again, in a runner."""
    max_rows: int = DEFAULT_MAX_ROWS
    """Most rows that are put together into a batch; 1: requests of this version are never put together."""
    gathered: Mapping[str, int] = field(default_factory=dict)
    """Open variant -> most rows that are put together for it: where its measured curve stops paying."""
    padded: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Open variant -> numbers of rows to which filling a batch up was measured to win; only those that have any."""
    costs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Bucket -> those that load and live figures may choose among, in the order of the evidence, with the seconds of a
    run there: the open ones that are proven in the bucket, and the reference. Only buckets with more than one."""
    objective: str = "latency"
    cut_rows: int = 0
    """Requests with more rows are cut into parts of as many; 0: none is."""
    max_batch_size: int = 0
    """Most rows of one request; 0: as many as the client likes, since rows mean nothing here (PROTOCOL section 6)."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """What should be open: the reference and the best of every bucket."""
        best = dict.fromkeys(ids[0] for ids in self.ranked.values() if ids)
        return tuple(dict.fromkeys((REFERENCE, *best))) if REFERENCE in self.variants else tuple(best)

    def opened(self, sessions: Mapping[str, Session]) -> VersionRoute:
        """The same route with these sessions."""
        plans = {variant: plan for variant in sessions if (plan := self.variants[variant].plan) is not None}
        rows = min((plan.max_rows for plan in plans.values()), default=DEFAULT_MAX_ROWS)
        batched = MOST_ROWS if rows > 1 and self.signature.has_batch_axis else 0
        every = tuple(self.variants.values())
        gathered = {variant: min(rows, most_rows(self.variants[variant], every, rows)) for variant in sessions}
        padded = {variant: plan.padded for variant, plan in plans.items() if plan.padded and rows > 1}
        made = replace(
            self, sessions=dict(sessions), max_rows=rows, max_batch_size=batched, gathered=gathered, padded=padded,
            costs={bucket: costs for bucket in self.buckets if len(costs := self._costs(bucket, sessions)) > 1},
        )  # fmt: skip
        return replace(made, cut_rows=made._cut_rows() if batched else 0)

    def limited(self, rows: int) -> VersionRoute:
        """The same route with at most `rows` rows in a request and in a batch; 0: nothing is put together."""
        most = max(1, min(rows, self.max_rows))
        gathered = {variant: min(most, own) for variant, own in self.gathered.items()}
        made = replace(self, max_rows=most, max_batch_size=rows, gathered=gathered)
        return replace(made, cut_rows=made._cut_rows() if rows and self.cut_rows else 0)

    def _costs(self, bucket: int, sessions: Mapping[str, Session]) -> dict[str, float]:
        """Seconds of the reference by the median of what the others were held against, of the others by their speed-up:
        ratios hold better than times."""
        curve = measured(self.variants[REFERENCE], self.variants.values()) if REFERENCE in self.variants else None
        if curve is None:
            return {}
        able = (variant for variant in self.ranked[bucket] if variant in sessions)
        proven = [variant for variant in able if _standing(self.variants[variant], bucket)]
        return {variant: curve.seconds(bucket) / speedup(self.variants[variant], bucket) for variant in proven}

    def _cut_rows(self) -> int:
        """The largest batch of whoever answers large batches."""
        best = next((variant for variant in self.ranked[self.buckets[-1]] if variant in self.gathered), None)
        return 0 if best is None else self.gathered[best]

    def bucket(self, rows: int) -> int:
        """The measured bucket nearest to `rows` by ratio."""
        return nearest(self.buckets, rows)

    def pick(self, rows: int, usable: Callable[[str, Session], bool], avoid: str | None = None) -> Choice | None:
        """The best usable variant for `rows` rows. None: nothing is usable now.

        `avoid` (it killed the runner of this very batch) only when no other is open or on its way.
        """
        ids = self.ranked[self.bucket(rows)]
        spare: Choice | None = None
        coming = False
        for position, variant in enumerate(ids):
            session = self.sessions.get(variant)
            if session is None:
                continue
            if not usable(variant, session):
                coming = coming or (variant != avoid and not session.ready and not session.closed)
                continue
            why = "fallback" if position else "fastest" if len(ids) > 1 else "only"
            if variant != avoid:
                return Choice(variant, session, why)
            spare = Choice(variant, session, why)
        return None if coming else spare

    def pinned(self, variant: str, usable: Callable[[str, Session], bool]) -> Choice | None:
        session = self.sessions.get(variant)
        return Choice(variant, session, "pinned") if session is not None and usable(variant, session) else None

    def check_pin(self, variant: str) -> None:
        """Raise BadRequest unless `variant` exists and has something to run."""
        if variant not in self.variants:
            raise BadRequest(
                f"model '{self.name}' version {self.version} has no variant {variant!r}; it has "
                + ", ".join(sorted(self.variants))
            )
        if self.variants[variant].artifact is None:
            raise BadRequest(f"variant {variant!r} has nothing to run: {self.variants[variant].reason}")


def rank(
    variants: Iterable[Variant],
    serve_unproven: bool,
    before: VersionRoute | None = None,
    objective: str = "latency",
) -> tuple[tuple[int, ...], dict[int, tuple[str, ...]]]:
    """(buckets, ranking per bucket). `before` holds the incumbents. Source of the rule: DESIGN section 6."""
    able = {variant.id: variant for variant in variants if may_answer(variant, serve_unproven)}
    buckets = tuple(sorted({t.rows for v in able.values() if v.evidence for t in v.evidence.timings})) or (1,)
    ranked: dict[int, tuple[str, ...]] = {}
    for bucket in buckets:
        merit = {name: (_standing(v, bucket), _merit(v, bucket, buckets[-1], objective)) for name, v in able.items()}
        order = sorted(merit, key=lambda name: (*(-part for part in merit[name]), name))
        incumbent = REFERENCE
        if before is not None and (old := before.ranked.get(nearest(before.buckets, bucket))):
            incumbent = old[0] if old[0] in merit else REFERENCE
        if order and incumbent in merit and not _displaces(merit[order[0]], merit[incumbent]):
            order.remove(incumbent)
            order.insert(0, incumbent)
        ranked[bucket] = tuple(order)
    return buckets, ranked


def _standing(variant: Variant, bucket: int) -> int:
    """2: proven faster than the reference in this bucket; 1: the reference; 0: not proven here."""
    if variant.id == REFERENCE:
        return 1
    timing = timing_in(variant, bucket)
    return 2 if timing is not None and timing.speedup_lower > 1.0 else 0


def _merit(variant: Variant, bucket: int, largest: int, objective: str) -> float:
    if objective == "size":
        return 1 / max(1, variant.size_bytes)
    if objective == "memory" and variant.evidence is not None:
        return 1 / max(1, variant.evidence.peak_memory_bytes or 1)
    return speedup(variant, largest if objective == "throughput" else bucket)


def _displaces(best: tuple[int, float], incumbent: tuple[int, float]) -> bool:
    """Whether the best takes the incumbent's place; both are (standing, merit)."""
    if incumbent[0] == 0:
        return best[0] > 0
    return best[1] > HYSTERESIS * incumbent[1] if best[0] == incumbent[0] else best[0] > incumbent[0]


def may_answer(variant: Variant, serve_unproven: bool) -> bool:
    """Whether requests that pin nothing may be answered by it."""
    if variant.artifact is None:
        return False
    return variant.verdict is Verdict.SERVING or (serve_unproven and variant.verdict is Verdict.INCONCLUSIVE)


def speedup(variant: Variant, bucket: int) -> float:
    """Measured speed-up over the reference in the bucket (or the nearest one measured); 1.0 without a figure."""
    timing = timing_in(variant, bucket)
    return 1.0 if variant.id == REFERENCE or timing is None else timing.speedup


def timing_in(variant: Variant, bucket: int) -> Timing | None:
    """What was measured in the bucket, or in the nearest one measured."""
    if variant.evidence is None or not variant.evidence.timings:
        return None
    by_rows = {timing.rows: timing for timing in variant.evidence.timings}
    return by_rows[nearest(tuple(sorted(by_rows)), bucket)]


@lru_cache(4096)
def nearest(buckets: tuple[int, ...], rows: int) -> int:
    """The bucket nearest to `rows` by ratio; the smaller one of two as near."""
    if len(buckets) == 1:
        return buckets[0]
    rows = max(1, rows)
    return min(buckets, key=lambda bucket: max(bucket / rows, rows / bucket))

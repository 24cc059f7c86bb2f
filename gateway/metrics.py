"""Every metric of our own, named here and nowhere else; what requests and batches cost is read from statistics.py.

Names, labels and buckets: OPERATIONS 2.1; beside them stand Triton's counters (triton_counters.py). One process owns it
all: runners report their times with each answer.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from compilers.targets import TARGETS
from gateway import series, triton_counters
from gateway.readings import Readings
from gateway.series import Distribution
from gateway.statistics import Statistics
from model_store.entities import Variant

if TYPE_CHECKING:
    from gateway.serve import Serving

COMPILE_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SHED, _DB_ERRORS = "shed", "db_error"
_SHED_REASONS = ("queue_full", "deadline", "rate_limit", "draining", "memory")


class Inside(NamedTuple):
    """What is inside one process at this moment: the gauges that add up over processes."""

    inflight: int
    limit: int
    depths: list[tuple[str, str, int]]
    """Model, version, requests that wait."""


def inside(serving: Serving) -> Inside:
    """Of this process."""
    depths = [(*where, batcher.depth) for where, batcher in serving.batchers.items()]
    return Inside(serving.admission.inflight, serving.admission.limit, depths)


class Metrics:
    """Renders text: `statistics`, and the few facts that are only metrics and come in here."""

    def __init__(self, statistics: Statistics) -> None:
        self.registry = CollectorRegistry()
        self._statistics = statistics
        self._readings = Readings(statistics)
        self._serving: Serving | None = None
        registry = self.registry
        ProcessCollector(registry=registry)
        self._restarts = Counter(
            "forgeway_worker_restarts", "Runners that died", ["cause", "accelerator", "runtime"], registry=registry
        )
        self._jobs = Gauge("forgeway_compile_jobs", "Compile jobs by state", ["state"], registry=registry)
        self._compile_seconds = Histogram(
            "forgeway_compile_duration_seconds",
            "Time of compile steps",
            ["target", "step"],
            buckets=COMPILE_SECONDS,
            registry=registry,
        )
        self._compile_failures = Counter(
            "forgeway_compile_failures", "Compile steps that failed", ["target", "reason"], registry=registry
        )
        which = ["model", "version", "variant", "target"]
        self._accuracy = Gauge(
            "forgeway_variant_accuracy_delta_ratio", "Label or top-1 accuracy against the reference", which,
            registry=registry,
        )  # fmt: skip
        self._latency = Gauge(
            "forgeway_variant_latency_seconds", "Measured when the variant was proven, one row", [*which, "quantile"],
            registry=registry,
        )  # fmt: skip
        self._blob_bytes = Gauge("forgeway_blob_bytes", "Bytes in the blob store", registry=registry)
        info = Gauge("forgeway_build_info", "Always 1", ["version"], registry=registry)
        info.labels(importlib.metadata.version("forgeway")).set(1)

    def watch(self, serving: Serving) -> None:
        """Read the gauges of `serving` at every scrape."""
        self._serving = serving

    def shed(self, reason: str) -> None:
        self._statistics.happened(_SHED, reason)

    def runner_died(self, target: str, cause: str) -> None:
        self._restarts.labels(cause, *_hardware(target)).inc()

    def db_failed(self) -> None:
        self._statistics.happened(_DB_ERRORS)

    def set_blob_bytes(self, nbytes: int) -> None:
        self._blob_bytes.set(nbytes)

    def set_jobs(self, counts: Mapping[str, int]) -> None:
        """Compile jobs by state, as the management side counted them."""
        for state, count in counts.items():
            self._jobs.labels(state).set(count)

    def compile_step(self, target: str, step: str, seconds: float) -> None:
        self._compile_seconds.labels(target, step).observe(seconds)

    def compile_failed(self, target: str, reason: str) -> None:
        self._compile_failures.labels(target, reason).inc()

    def proven(self, variant: Variant) -> None:
        """Publish the figures a variant was proven with."""
        labels = (self._readings.bounded(variant.name), variant.version, variant.id, variant.target)
        evidence = variant.evidence
        if evidence is None:
            return
        if evidence.timings:
            timing = evidence.timings[0]
            for quantile, value in (("0.5", timing.p50_s), ("0.9", timing.p90_s), ("0.99", timing.p99_s)):
                self._latency.labels(*labels, quantile).set(value)
        agreement = evidence.agreement
        if agreement is None:
            return
        if agreement.label_accuracy is not None and agreement.reference_label_accuracy is not None:
            self._accuracy.labels(*labels).set(agreement.label_accuracy - agreement.reference_label_accuracy)
        elif agreement.top1 is not None:
            self._accuracy.labels(*labels).set(agreement.top1 - 1)

    def render(self, others: Sequence[Inside] = ()) -> bytes:
        """Everything, in the Prometheus text format 0.0.4. `others`: the other processes of this gateway."""
        return generate_latest(self.registry) + ("\n".join(self._lines(others)) + "\n").encode()

    def _lines(self, others: Sequence[Inside]) -> Iterator[str]:
        found = self._readings.series()
        which = [
            (series.pairs(**dict(zip(("model", "version", "variant", "target"), key, strict=True))), one)
            for key, one in found.items()
        ]
        failures = self._readings.failures()
        yield series.head("forgeway_requests_total", "counter", "Predictions by outcome")
        for labels, one in which:
            yield f'forgeway_requests_total{{{labels},code="200",reason="ok"}} {one.request.count}'
        for (model, version, code, reason), count in failures.items():
            pairs = series.pairs(model=model, version=version, variant="", target="", code=str(code), reason=reason)
            yield f"forgeway_requests_total{{{pairs}}} {count}"
        yield from _histogram(
            "forgeway_request_duration_seconds", "From the request's arrival to its encoded answer",
            ((labels, one.request) for labels, one in which),
        )  # fmt: skip
        yield from _histogram(
            "forgeway_queue_duration_seconds",
            "Waiting for a free runner",
            ((labels, one.queue) for labels, one in which),
        )
        yield from _histogram(
            "forgeway_inference_duration_seconds", "In the runtime", ((labels, one.infer) for labels, one in which)
        )
        both = [
            (f'{labels},direction="{way}"', d)
            for labels, one in which
            for way, d in (("in", one.decode), ("out", one.encode))
        ]
        yield from _histogram("forgeway_serialization_duration_seconds", "Decoding and encoding bodies", both)
        yield from _histogram("forgeway_batch_size", "Rows of a batch", ((labels, one.batch) for labels, one in which))
        yield series.head("forgeway_route_decisions_total", "counter", "Batches by the router's choice")
        for labels, one in which:
            for why, count in one.why.items():
                yield f'forgeway_route_decisions_total{{{labels},why="{why}"}} {count}'
        yield series.head("forgeway_requests_shed_total", "counter", "Requests refused at the door")
        for reason in _SHED_REASONS:
            yield f'forgeway_requests_shed_total{{reason="{reason}"}} {float(self._statistics.times(_SHED, reason))}'
        yield series.head("forgeway_db_errors_total", "counter", "Failed reads of the catalog")
        yield f"forgeway_db_errors_total {float(self._statistics.times(_DB_ERRORS))}"
        yield from self._gauges(others)
        yield from triton_counters.lines(found, failures)

    def _gauges(self, others: Sequence[Inside]) -> Iterator[str]:
        serving = self._serving
        if serving is None:
            return
        everyone = (inside(serving), *others)
        yield series.head("forgeway_gateways", "gauge", "Processes that accept requests")
        yield f"forgeway_gateways {len(everyone)}"
        yield series.head("forgeway_inflight_requests", "gauge", "Predictions inside")
        yield f"forgeway_inflight_requests {sum(one.inflight for one in everyone)}"
        yield series.head("forgeway_concurrency_limit", "gauge", "Most predictions inside")
        yield f"forgeway_concurrency_limit {sum(one.limit for one in everyone)}"
        depths: Tally[tuple[str, str]] = Tally()
        for one in everyone:
            for model, version, depth in one.depths:
                depths[model, version] += depth
        for name, words in (
            ("forgeway_queue_depth", "Predictions waiting for a runner"),
            ("nv_inference_pending_request_count", "Requests awaiting execution"),
        ):
            yield series.head(name, "gauge", words)
            for (model, version), depth in depths.items():
                yield f"{name}{{{series.pairs(model=model, version=version)}}} {depth}"
        yield series.head("forgeway_workers", "gauge", "Runners that are ready")
        for target, facts in serving.runners.state().items():
            accelerator, runtime = _hardware(target)
            pairs = series.pairs(accelerator=accelerator, runtime=runtime, target=target)
            yield f"forgeway_workers{{{pairs}}} {int(facts['ready'])}"


def _histogram(name: str, words: str, parts: Iterable[tuple[str, Distribution]]) -> Iterator[str]:
    yield series.head(name, "histogram", words)
    for labels, distribution in parts:
        yield from distribution.lines(name, labels)


def _hardware(target: str) -> tuple[str, str]:
    entry = TARGETS.get(target)
    return (entry.device, entry.requires[0]) if entry is not None else ("unknown", "unknown")

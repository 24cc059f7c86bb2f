"""Triton's core counters, `nv_inference_*`, beside our own metrics: dashboards that were made for it work here."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Mapping

from gateway import series
from gateway.readings import Labels, Series
from gateway.statistics import Failure

_FAILURES = {
    "queue_full": "REJECTED", "deadline": "REJECTED", "draining": "REJECTED", "memory": "REJECTED",
    "rate_limit": "REJECTED", "cancelled": "CANCELED", "model_failed": "BACKEND", "runner_died": "BACKEND",
}  # fmt: skip
_COUNTERS = {
    "request_success": "Answered requests",
    "count": "Rows answered",
    "exec_count": "Batches run",
    "request_duration_us": "Request time",
    "queue_duration_us": "Queue time",
    "compute_input_duration_us": "Time to get inputs to the runtime",
    "compute_infer_duration_us": "Time in the runtime",
    "compute_output_duration_us": "Time to get outputs back",
}


def lines(found: Mapping[Labels, Series], failed: Mapping[Failure, int]) -> Iterator[str]:
    """Per model and version; durations are sums in microseconds."""
    totals: dict[tuple[str, str], Tally[str]] = {}
    for (model, version, _, _), one in found.items():
        total = totals.setdefault((model, version), Tally())
        total["request_success"] += one.request.count
        total["count"] += one.rows
        total["exec_count"] += one.executions
        total["request_duration_us"] += one.request.total
        total["queue_duration_us"] += one.queue.total
        total["compute_input_duration_us"] += one.input_ns
        total["compute_infer_duration_us"] += one.infer.total
        total["compute_output_duration_us"] += one.output_ns
    for name, words in _COUNTERS.items():
        yield series.head(f"nv_inference_{name}", "counter", words)
        for (model, version), total in totals.items():
            value = total[name] // 1000 if name.endswith("_us") else total[name]
            yield f"nv_inference_{name}{{{series.pairs(model=model, version=version)}}} {value}"
    failures: Tally[tuple[str, str, str]] = Tally()
    for (model, version, _, reason), count in failed.items():
        failures[model, version, _FAILURES.get(reason, "OTHER")] += count
    yield series.head("nv_inference_request_failure", "counter", "Failed requests")
    for (model, version, reason), count in failures.items():
        yield f"nv_inference_request_failure{{{series.pairs(model=model, version=version, reason=reason)}}} {count}"

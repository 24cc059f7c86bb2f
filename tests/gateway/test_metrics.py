"""Metric names and figures, as a scraper reads them."""

from __future__ import annotations

import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.counts import Counts
from gateway.metrics import Metrics
from gateway.readings import MAX_MODELS
from gateway.routing.health import Subject
from gateway.series import Distribution
from gateway.serve import Serving
from gateway.statistics import Statistics
from tests.gateway.engines import settings, variant

MS = 1_000_000


def serve(statistics: Statistics, model: str = "m", **changes: int) -> None:
    """One answered request of two rows."""
    facts = {
        "rows": 2, "request_ns": 30 * MS, "decode_ns": MS, "queue_ns": 4 * MS, "input_ns": 2 * MS,
        "infer_ns": 20 * MS, "output_ns": 3 * MS, "encode_ns": MS,
    }  # fmt: skip
    counts(statistics, model).answered(**{**facts, **changes})


def counts(statistics: Statistics, model: str = "m") -> Counts:
    return statistics.counts(Subject(model, "1", "reference"), "ort-cpu")


def ran(statistics: Statistics, model: str = "m", rows: int = 6) -> None:
    counts(statistics, model).ran(rows, "only", 2 * MS, 20 * MS, 3 * MS)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read line by line: the client's own parser renames counters that do not end in `_total`, as Triton's do not."""
    found = {}
    for line in metrics.render().decode().splitlines():
        if match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line):
            name, labels, value = match.groups()
            found[name, tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels or "")))] = float(value)
    return found


def test_every_family_is_there_by_its_exact_name_and_type():
    metrics = asyncio.run(_watched())
    metrics.set_jobs({"queued": 2, "running": 1})
    metrics.compile_step("ort-cpu", "measure", 3.0)
    metrics.compile_failed("ort-cpu", "timeout")
    metrics.runner_died("ort-cpu", "segv")
    metrics.proven(variant("m", "int8", {1: 2.0}))
    families = {family.name: family.type for family in text_string_to_metric_families(metrics.render().decode())}
    expected = {
        "forgeway_requests": "counter",
        "forgeway_request_duration_seconds": "histogram",
        "forgeway_queue_duration_seconds": "histogram",
        "forgeway_inference_duration_seconds": "histogram",
        "forgeway_serialization_duration_seconds": "histogram",
        "forgeway_batch_size": "histogram",
        "forgeway_inflight_requests": "gauge",
        "forgeway_queue_depth": "gauge",
        "forgeway_concurrency_limit": "gauge",
        "forgeway_requests_shed": "counter",
        "forgeway_worker_restarts": "counter",
        "forgeway_workers": "gauge",
        "forgeway_compile_jobs": "gauge",
        "forgeway_compile_duration_seconds": "histogram",
        "forgeway_compile_failures": "counter",
        "forgeway_variant_latency_seconds": "gauge",
        "forgeway_variant_accuracy_delta_ratio": "gauge",
        "forgeway_route_decisions": "counter",
        "forgeway_build_info": "gauge",
        "forgeway_db_errors": "counter",
        "forgeway_blob_bytes": "gauge",
        "nv_inference_request_success": "counter",
        "nv_inference_request_failure": "counter",
        "nv_inference_count": "counter",
        "nv_inference_exec_count": "counter",
        "nv_inference_request_duration_us": "counter",
        "nv_inference_queue_duration_us": "counter",
        "nv_inference_compute_input_duration_us": "counter",
        "nv_inference_compute_infer_duration_us": "counter",
        "nv_inference_compute_output_duration_us": "counter",
        "nv_inference_pending_request_count": "gauge",
        "process_resident_memory_bytes": "gauge",
    }
    assert {name: families.get(name) for name in expected} == expected


async def _watched() -> Metrics:
    serving = Serving(settings())
    serve(serving.statistics)
    ran(serving.statistics)
    serving.statistics.failed("m", "1", 503, "queue_full", MS)
    return serving.metrics


def test_an_answered_request_is_counted_with_its_stages():
    statistics = Statistics()
    serve(statistics)
    serve(statistics, queue_ns=0)
    ran(statistics)
    seen = samples(Metrics(statistics))
    labels = (("model", "m"), ("target", "ort-cpu"), ("variant", "reference"), ("version", "1"))
    assert seen["forgeway_requests_total", tuple(sorted((*labels, ("code", "200"), ("reason", "ok"))))] == 2
    assert seen["forgeway_request_duration_seconds_sum", labels] == pytest.approx(0.06)
    assert seen["forgeway_queue_duration_seconds_count", labels] == 2
    assert seen["forgeway_inference_duration_seconds_bucket", tuple(sorted((*labels, ("le", "0.02"))))] == 2
    assert seen["forgeway_inference_duration_seconds_bucket", tuple(sorted((*labels, ("le", "0.01"))))] == 0
    assert seen["forgeway_batch_size_sum", labels] == 6
    triton = (("model", "m"), ("version", "1"))
    assert seen["nv_inference_count", triton] == 4
    assert seen["nv_inference_exec_count", triton] == 1
    assert seen["nv_inference_request_duration_us", triton] == 60_000
    assert seen["nv_inference_compute_infer_duration_us", triton] == 40_000


def test_failures_are_counted_by_code_and_by_tritons_reason():
    statistics = Statistics()
    statistics.failed("m", "1", 503, "queue_full", MS)
    statistics.failed("m", "1", 499, "cancelled", MS)
    statistics.failed("m", "1", 400, "bad_request", MS)
    seen = samples(Metrics(statistics))
    for reason in ("REJECTED", "CANCELED", "OTHER"):
        key = (("model", "m"), ("reason", reason), ("version", "1"))
        assert seen["nv_inference_request_failure", key] == 1


def test_the_number_of_models_in_labels_is_bounded():
    statistics = Statistics()
    metrics = Metrics(statistics)
    for number in range(MAX_MODELS + 20):
        serve(statistics, f"m{number}")
        serve(statistics, f"m{number}")
    models = {dict(labels).get("model") for name, labels in samples(metrics) if name == "nv_inference_count"}
    assert len(models) == MAX_MODELS + 1
    other = (("model", "other"), ("version", "1"))
    assert samples(metrics)["nv_inference_request_success", other] == 40


def test_a_deleted_version_leaves_the_scrape():
    statistics = Statistics()
    serve(statistics)
    statistics.failed("m", "1", 400, "bad_request", MS)
    statistics.forget("m", "1")
    assert not [name for name, labels in samples(Metrics(statistics)) if dict(labels).get("model") == "m"]


def test_bounds_are_inclusive_and_buckets_cumulative():
    distribution = Distribution((1.0, 2.0), 1.0)
    for value in (1, 2, 2, 3):
        distribution.add(value)
    assert list(distribution.lines("h", 'a="b"')) == [
        'h_bucket{a="b",le="1.0"} 1',
        'h_bucket{a="b",le="2.0"} 3',
        'h_bucket{a="b",le="+Inf"} 4',
        'h_sum{a="b"} 8.0',
        'h_count{a="b"} 4',
    ]

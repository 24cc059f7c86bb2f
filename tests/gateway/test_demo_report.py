"""What the demo prints is true to what it was given, and what it calls wrong is wrong."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from rich.console import Console

from gateway.demo import report
from gateway.demo.asking import near

VARIANT = {
    "id": "openvino-cpu.int8",
    "verdict": "serving",
    "size_bytes": 250_000,
    "reason": "proven right and 3.9x faster at 32 rows",
    "evidence": {
        "agreement": {"sqnr_db": 33.2, "cosine": 0.9991},
        "timings": [
            {"rows": 1, "p50_s": 0.00016, "speedup": 2.5, "speedup_lower": 2.4},
            {"rows": 32, "p50_s": 0.0017, "speedup": 3.9, "speedup_lower": 3.7},
        ],
    },
}


def printed(*variants: dict[str, Any]) -> list[str]:
    text = io.StringIO()
    report.variants(Console(file=text), variants)
    return text.getvalue().splitlines()


def test_variants_are_shown_with_what_their_evidence_says() -> None:
    rows, head, row, _, reason = printed(VARIANT)
    assert "1/32 rows" in rows
    assert head.split()[0] == "variant"
    for figure in ("openvino-cpu.int8", "serving", "0.25 MB", "0.16/1.7", "2.5/3.9", "33.2 dB"):
        assert figure in row
    assert reason == "  openvino-cpu.int8: proven right and 3.9x faster at 32 rows"


def test_variant_without_evidence_is_shown_with_its_reason() -> None:
    rejected = {"id": "x", "verdict": "rejected", "size_bytes": 0, "reason": "crashed", "evidence": None}
    lines = printed(VARIANT, rejected)
    assert lines[3].split() == ["x", "rejected", "-", "-/-", "-/-", "-"]
    assert lines[-1] == "  x: crashed"


def test_plain_table_is_aligned_and_never_cut() -> None:
    text = io.StringIO()
    report.table(Console(file=text), ("variant", "reason"), [("a", "word " * 60 + "end"), ("longer-name", "short")])
    lines = text.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("end")
    assert lines[0].index("reason") == lines[2].index("short")


def test_latency_is_read_from_histograms_of_the_model_asked_for() -> None:
    registry = CollectorRegistry()
    duration = Histogram(
        "forgeway_request_duration_seconds", "d", ["model", "variant"], buckets=(0.001, 0.002, 0.01), registry=registry
    )
    for _ in range(99):
        duration.labels("digits", "reference").observe(0.0015)
    duration.labels("digits", "reference").observe(0.005)
    duration.labels("other", "reference").observe(5)
    (row,) = report.metric_rows(generate_latest(registry).decode(), "digits")
    assert row[:2] == ("reference", "100")
    assert 1.0 <= float(row[3].split()[0]) <= 2.0
    assert row[5] == "-"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ([[1.0, 2.01, 3.0]], None),
        ([[3.0, 2.0, -9.0]], "cosine"),
        ([[1.0, 2.0, np.nan]], "cosine"),
        ([[1.0, 2.0]], "(1, 2)"),
    ],
)
def test_judge_accepts_rounding_and_refuses_another_rows_answer(answer: list[list[float]], fault: str | None) -> None:
    found = near([{"y": np.array([[1.0, 2.0, 3.0]])}])(0, {"y": np.array(answer)})
    assert found is None if fault is None else fault in (found or "")

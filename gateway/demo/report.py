"""What the demo prints: rich tables for a person at a terminal, aligned plain text for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Sequence[str]


def section(console: Console, title: str) -> None:
    console.print(f"\n{title}", style="bold", markup=False, highlight=False, soft_wrap=True)


def line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def table(console: Console, headings: Row, rows: Sequence[Row]) -> None:
    """The last column may be long: it wraps on a terminal and stays on one line elsewhere."""
    if console.is_terminal:
        drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for heading in headings[:-1]:
            drawn.add_column(heading, no_wrap=True)
        drawn.add_column(headings[-1], overflow="fold")
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        console.print(drawn)
        return
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings) - 1)]
    for row in (headings, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line(console, "  ".join([*cells, row[-1]]).rstrip())


def variants(console: Console, tried: Sequence[Mapping[str, Any]]) -> None:
    """Every variant as `GET /v1/models/{name}/versions/{v}` describes it: figures in a table, reasons below it."""
    buckets = sorted({timing["rows"] for variant in tried for timing in _timings(variant)})
    line(console, f"p50 in ms, and how many times faster than the reference, at {'/'.join(map(str, buckets))} rows:")
    headings = ("variant", "verdict", "size", "p50", "speed-up", "agrees")
    table(console, headings, [_variant_row(variant, buckets) for variant in tried])
    line(console, "")
    for variant in tried:
        line(console, f"  {variant['id']}: {variant['reason']}")


def _variant_row(variant: Mapping[str, Any], buckets: Sequence[int]) -> Row:
    timings = {timing["rows"]: timing for timing in _timings(variant)}
    agreement = (variant.get("evidence") or {}).get("agreement")
    return (
        variant["id"],
        variant["verdict"],
        size(variant["size_bytes"]),
        "/".join(f"{timings[rows]['p50_s'] * 1e3:.3g}" if rows in timings else "-" for rows in buckets),
        "/".join(f"{timings[rows]['speedup']:.3g}" if rows in timings else "-" for rows in buckets),
        f"{agreement['sqnr_db']:.1f} dB" if agreement else "-",
    )


def _timings(variant: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (variant.get("evidence") or {}).get("timings") or ()


def size(count: int | None) -> str:
    return "-" if not count else f"{count / 1e6:.2f} MB"


METRIC_HEADINGS = ("variant", "requests", "mean", "p50", "p99", "in queue", "running")


def metric_rows(text: str, model: str) -> list[Row]:
    """Latency by variant out of a scrape: counts, means, and quantiles as Prometheus does them (linear in a bucket)."""
    found = _Scrape(text, model)
    return [
        (
            variant,
            f"{found.count('forgeway_request_duration_seconds', variant):.0f}",
            _ms(found.mean("forgeway_request_duration_seconds", variant)),
            _ms(found.quantile("forgeway_request_duration_seconds", variant, 0.5)),
            _ms(found.quantile("forgeway_request_duration_seconds", variant, 0.99)),
            _ms(found.mean("forgeway_queue_duration_seconds", variant)),
            _ms(found.mean("forgeway_inference_duration_seconds", variant)),
        )
        for variant in found.variants("forgeway_request_duration_seconds")
    ]


class _Scrape:
    """Histograms of one model, by metric and variant: upper bounds with cumulative counts, sum and count."""

    def __init__(self, text: str, model: str) -> None:
        self._buckets: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._totals: dict[tuple[str, str], float] = {}
        for family in text_string_to_metric_families(text):
            if family.type != "histogram":
                continue
            for sample in family.samples:
                if sample.labels.get("model") != model:
                    continue
                variant = sample.labels.get("variant", "")
                if sample.name.endswith("_bucket"):
                    bound = (float(sample.labels["le"]), sample.value)
                    self._buckets.setdefault((family.name, variant), []).append(bound)
                else:
                    self._totals[(sample.name, variant)] = sample.value

    def variants(self, metric: str) -> list[str]:
        return sorted(variant for name, variant in self._totals if name == f"{metric}_count")

    def count(self, metric: str, variant: str) -> float:
        return self._totals.get((f"{metric}_count", variant), 0.0)

    def mean(self, metric: str, variant: str) -> float | None:
        count = self.count(metric, variant)
        return self._totals[(f"{metric}_sum", variant)] / count if count else None

    def quantile(self, metric: str, variant: str, q: float) -> float | None:
        wanted = q * self.count(metric, variant)
        low, below = 0.0, 0.0
        for high, count in sorted(self._buckets.get((metric, variant), ())):
            if count >= wanted and count > below:
                return low if high == float("inf") else low + (high - low) * (wanted - below) / (count - below)
            low, below = high, count
        return None


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"

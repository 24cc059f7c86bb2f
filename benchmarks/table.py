"""Results as a table for people and as one JSON document for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.figures import Figures, Spread, ratios
from benchmarks.rounds import CONNECTIONS, Result, Results

MIB = 1 << 20


def markdown(results: Results, facts: Mapping[str, str]) -> str:
    lines = ["# Through HTTP against the bare session", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += [
        f"- gateway ready in {results.ready_s:.2f} s; gateway and runners with every subject loaded, idle: "
        f"{results.idle_pss_bytes / MIB:.0f} MiB PSS",
        "",
        "Medians over the rounds, (least-greatest). Ratios are taken within each round. One row a request, V2 binary,",
        "keep-alive. `bare`: the session alone in a loop, same files, options and threads. Only the ratios carry over",
        "to another day or machine.",
    ]
    for result in results.subjects:
        lines += ["", *subject_table(result)]
    if results.echo:
        lines += ["", *echo_table(results)]
    return "\n".join(lines) + "\n"


def subject_table(result: Result) -> Iterator[str]:
    yield f"## {result.subject}"
    yield ""
    yield f"{result.note}. {result.model_bytes / 1e6:.1f} MB; first answer {result.first_answer_s:.2f} s after the"
    yield f"upload began, every variant settled after {result.compile_s:.0f} s."
    yield ""
    yield "| | answered by | req/s | x bare reference | x bare served | p50 ms | p99 ms |"
    yield "|---|---|---|---|---|---|---|"
    bare, bare_served = result.rounds["bare"], result.rounds["bare served"]
    yield row("bare reference", "reference", bare, bare, bare_served)
    yield row("bare served", result.served, bare_served, bare, bare_served)
    for connections in CONNECTIONS:
        for name in ("reference", "served"):
            measured = result.rounds[f"{name} c={connections}"]
            yield row(f"HTTP {name} c={connections}", answered_by(measured), measured, bare, bare_served)
    yield ""
    yield "| variant | verdict | reason |"
    yield "|---|---|---|"
    for variant in result.variants:
        yield f"| {variant['id']} | {variant['verdict']} | {variant['reason']} |"


def row(
    name: str, answered: str, measured: Sequence[Figures], bare: Sequence[Figures], bare_served: Sequence[Figures]
) -> str:
    cells = (
        name,
        answered,
        Spread.over([figures.rate for figures in measured]).text(".0f"),
        ratios(measured, bare).text(),
        ratios(measured, bare_served).text(),
        Spread.over([figures.p50_s for figures in measured]).text(".3f", 1e3),
        Spread.over([figures.p99_s for figures in measured]).text(".3f", 1e3),
    )
    return f"| {' | '.join(cells)} |"


def answered_by(measured: Sequence[Figures]) -> str:
    counts: dict[str, int] = {}
    for figures in measured:
        for variant, count in figures.variants.items():
            counts[variant] = counts.get(variant, 0) + count
    total = sum(counts.values())
    shares = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(variant if len(counts) == 1 else f"{variant} {count / total:.0%}" for variant, count in shares)


def echo_table(results: Results) -> Iterator[str]:
    """tiny against the floor of HTTP: uvicorn with a raw ASGI echo, same request, same client."""
    served = next(result for result in results.subjects if result.subject == "tiny").rounds
    yield "## tiny against a uvicorn raw-ASGI echo"
    yield ""
    yield "| | echo req/s | tiny served / echo, throughput | tiny served / echo, p50 |"
    yield "|---|---|---|---|"
    for name, echo in results.echo.items():
        measured = served[f"served {name}"]
        rate = Spread.over([figures.rate for figures in echo]).text(".0f")
        yield f"| {name} | {rate} | {ratios(measured, echo).text()} | {ratios(measured, echo, 'p50_s').text()} |"


def document(results: Results, facts: Mapping[str, str]) -> str:
    content: dict[str, Any] = {"machine": dict(facts), **asdict(results)}
    return json.dumps(content, indent=1) + "\n"

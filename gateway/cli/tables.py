"""Versions and jobs, as tables for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from gateway.cli.output import seconds, size, table


def print_version(facts: dict[str, Any]) -> None:
    """One version for people."""
    title = f"{facts['name']} version {facts['version']}: {facts['status']} {facts['reason']}".rstrip()
    tensors = [
        (
            direction,
            spec["name"],
            spec["datatype"],
            "x".join("?" if d < 0 else str(d) for d in spec["shape"]) or "scalar",
        )
        for direction in ("inputs", "outputs")
        for spec in facts["signature"][direction]
    ]
    table(title, ["", "name", "datatype", "shape"], [(row[0][:-1], *row[1:]) for row in tensors])
    table(
        None, ["variant", "verdict", ">size", ">rows", ">p50", ">speed-up", ">SQNR", ">top-1", "reason"], _rows(facts)
    )
    if planned := _plans(facts):
        table(None, ["variant", ">threads", ">at once", ">rows", "planned so because"], planned)


def _plans(facts: dict[str, Any]) -> list[Sequence[Any]]:
    """Of the variants whose plan was measured: how they run, and why."""
    plans = [(variant["id"], variant["plan"]) for variant in facts["variants"] if variant.get("plan")]
    return [
        (name, plan["threads"], plan["instances"], ", ".join(map(str, plan["buckets"])) or "-", plan["reason"])
        for name, plan in plans
        if plan["reason"]
    ]


def _rows(facts: dict[str, Any]) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = []
    for variant in facts["variants"]:
        timings = variant["evidence"]["timings"]
        agreement = variant["evidence"]["agreement"] or {}
        sqnr = agreement.get("sqnr_db")
        top1 = agreement.get("top1")
        rows.append(
            (
                variant["id"],
                variant["verdict"],
                _size(variant["size_bytes"], facts["size_bytes"]),
                "\n".join(str(timing["rows"]) for timing in timings),
                "\n".join(seconds(timing["p50_s"]) for timing in timings),
                "\n".join(f"{timing['speedup']:.2f}x" for timing in timings),
                "-" if sqnr is None else f"{sqnr:.1f} dB",
                "-" if top1 is None else f"{top1:.2%}",
                variant["reason"],
            )
        )
    return rows


def _size(kept: int, uploaded: int) -> str:
    """What a variant takes in the store, and how many times less than the upload that is."""
    return f"{size(kept)}, {uploaded / kept:.1f}x" if kept else size(None)


def print_jobs(found: Sequence[dict[str, Any]]) -> None:
    rows = [
        (
            job["id"],
            f"{job['name']}/{job['version']}",
            job["kind"],
            job["target"],
            job["state"],
            seconds((job["finished_at"] or time.time()) - job["started_at"]) if job["started_at"] else "-",
            job["error"],
        )
        for job in found
    ]
    table(None, ["job", "model", "kind", "target", "state", ">took", "error"], rows)

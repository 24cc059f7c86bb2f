"""Steady load on a gateway through `benchmarks.paced`: questions from subjects, capacity, a share of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import Subject
from benchmarks.rounds import infer_request
from gateway.client import Client
from model_store.entities import REFERENCE

CONNECTIONS = 32
QUESTIONS = 8
"""Different rows of each model, so that rows that were mixed up are seen."""


@dataclass(frozen=True)
class Paced:
    """What `benchmarks.paced` printed: totals by model, and one line for each window and model."""

    totals: Mapping[str, Mapping[str, Any]]
    windows: Sequence[Mapping[str, Any]]

    @property
    def rate(self) -> float:
        return float(sum(total["rate"] for total in self.totals.values()))

    @property
    def failed(self) -> int:
        return int(sum(total["failed"] for total in self.totals.values()))

    @property
    def faults(self) -> Mapping[str, int]:
        return next((total["faults"] for total in self.totals.values()), {})

    def ratio(self, model: str) -> float:
        """p99 over p50 of the whole run."""
        return float(self.totals[model]["p99_s"] / self.totals[model]["p50_s"])


def questions(client: Client, port: int, subjects: Sequence[Subject], folder: Path) -> list[dict[str, str]]:
    """Requests of one row as files, and what the reference answers to each."""
    made = []
    for subject in subjects:
        for number in range(QUESTIONS):
            row = {name: subject.samples[name][number : number + 1] for name in subject.row}
            asked = Subject(subject.name, b"", {}, row)
            stem = folder / f"question.{subject.name}.{number}"
            stem.with_suffix(".http").write_bytes(infer_request(port, asked, None))
            np.savez(stem.with_suffix(".npz"), **client.predict(subject.name, row, variant=REFERENCE))
            paths = {"request": str(stem.with_suffix(".http")), "expected": str(stem.with_suffix(".npz"))}
            made.append({"model": subject.name, **paths})
    return made


def start(
    port: int,
    asked: Sequence[Mapping[str, str]],
    rate: float | None,
    seconds: float,
    folder: Path,
    window_s: float = 60.0,
    poisson: bool = False,
    connections: int = CONNECTIONS,
) -> tuple[subprocess.Popen[bytes], Path]:
    """The load as a child, and the file that it prints to. Without a rate: as much as is answered."""
    spec, out = folder / "paced.json", folder / "paced.out"
    content = {
        "port": port, "questions": list(asked), "rate": rate, "seconds": seconds, "window_s": window_s,
        "connections": connections, "poisson": poisson,
    }  # fmt: skip
    spec.write_text(json.dumps(content))
    with out.open("wb") as file:
        return subprocess.Popen([sys.executable, "-m", "benchmarks.paced", str(spec)], stdout=file), out


def finished(process: subprocess.Popen[bytes], out: Path) -> Paced:
    try:
        process.wait()
    finally:
        process.kill()  # only where we are told to end before it has ended
    if process.returncode != 0:
        raise RuntimeError(f"benchmarks.paced ended with {process.returncode}")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    totals = {line["model"]: line for line in lines if line["window"] == -1}
    return Paced(totals, [line for line in lines if line["window"] != -1])


def run(
    port: int,
    asked: Sequence[Mapping[str, str]],
    rate: float | None,
    seconds: float,
    folder: Path,
    poisson: bool = False,
) -> Paced:
    return finished(*start(port, asked, rate, seconds, folder, poisson=poisson))


def capacity(port: int, asked: Sequence[Mapping[str, str]], seconds: float, folder: Path) -> float:
    """Answers a second with every connection busy all the time. The first run warms up."""
    run(port, asked, None, 1.0, folder)
    found = run(port, asked, None, seconds, folder)
    if found.failed:
        raise RuntimeError(f"{found.failed} requests failed: {dict(found.faults)}")
    return found.rate

"""Triton's own load generator on the servers that speak all of V2 as it wants it: a second opinion beside wrk.

The binary comes with `make clients`; where it is missing its table is left out.
"""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

from benchmarks.figures import Figures
from benchmarks.peers.roster import ROOT

FOLDER = ROOT / ".work" / "perf_analyzer"
BINARY = FOLDER / "perf_analyzer"
_WINDOWS = 3
"""It wants three windows that agree; how much they may differ is set so wide that three are enough."""


def load(port: int, model: str, connections: int, seconds: float, folder: Path) -> Figures:
    """Raises RuntimeError with its words when it does not come to a result."""
    report = folder / "perf_analyzer.csv"
    report.unlink(missing_ok=True)
    command = [str(BINARY), "-m", model, "-i", "http", "-u", f"127.0.0.1:{port}", "-f", str(report), "-b", "1"]
    command += ["-p", str(round(1000 * seconds / _WINDOWS)), "-s", "999", "-r", str(_WINDOWS + 1)]
    command += ["--concurrency-range", str(connections)]
    command += ["-H", "triton-access-token: bench"]  # pytriton's, see servers/pytriton_server.py; others ignore it
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(FOLDER)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60 + 10 * seconds)
    if done.returncode != 0 or not report.exists():
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise RuntimeError(f"perf_analyzer failed: {said[-1] if said else done.returncode}")
    with report.open(newline="") as lines:
        return figures(next(csv.DictReader(lines)))


def figures(row: dict[str, str]) -> Figures:
    """One row of its report; its latencies are in microseconds."""
    rate = float(row["Inferences/Second"])
    p50, p90, p99 = (float(row[f"p{quantile} latency"]) / 1e6 for quantile in (50, 90, 99))
    return Figures(rate, p50, p90, p99, round(rate))

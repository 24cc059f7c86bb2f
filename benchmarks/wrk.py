"""One request over and over by wrk, the same client for every server; `benchmarks.load` where wrk is not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures
from benchmarks.load import rate

SCRIPT = Path(__file__).with_name("post.lua")
PATIENCE_S = 60


class NoAnswers(RuntimeError):
    """Not one answer came within the time: measure for longer."""


def client() -> str:
    """Which load generator `load` uses here."""
    return "wrk" if shutil.which("wrk") else "benchmarks/load.py (wrk is not installed)"


def load(
    port: int, path: str, body: Path, headers: Mapping[str, str], connections: int, seconds: int, slow: bool = False
) -> Figures:
    """`slow`: the moment of each answer is kept and whole waves are counted (figures.rate of the moments).

    Raises NoAnswers, and RuntimeError when the load generator itself fails; errors of the server are counted.
    """
    if shutil.which("wrk") is None:
        return _load_py(port, path, body, headers, connections, seconds)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={PATIENCE_S}s", "-s", str(SCRIPT)]
    command += [f"http://127.0.0.1:{port}{path}", "--", str(body), "watch" if slow else "count"]
    for name, value in headers.items():
        command += [name, value]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE_S + 30)
    found = next((line[5:] for line in done.stdout.splitlines() if line.startswith("JSON ")), None)
    if found is None:
        raise RuntimeError(f"wrk failed (exit {done.returncode}):\n{done.stdout[-500:]}{done.stderr[-500:]}")
    return figures(json.loads(found), connections)


def figures(said: Mapping[str, Any], connections: int) -> Figures:
    """What the script's `done` printed."""
    errors = sum(said[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    if not said["count"]:
        raise NoAnswers(f"no answer in {said['duration_us'] / 1e6:.1f} s, {errors} errors")
    found = said["count"] / said["duration_us"] * 1e6
    moments = said["moments"]
    if len(moments) > 2 * connections:
        found = rate(moments[connections:], connections)  # the first answers came while the queue filled
    return Figures(found, said["p50_us"] / 1e6, said["p90_us"] / 1e6, said["p99_us"] / 1e6, said["count"], errors)


def _load_py(port: int, path: str, body: Path, headers: Mapping[str, str], connections: int, seconds: int) -> Figures:
    content = body.read_bytes()
    lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = body.with_suffix(".http")
    request.write_bytes("\r\n".join((*lines, "", "")).encode() + content)
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(connections), str(seconds), str(request)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"benchmarks.load failed:\n{done.stderr[-1000:]}")
    return Figures(**json.loads(done.stdout))

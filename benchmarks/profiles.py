"""`python -m benchmarks.profiles`: where the CPU time of gateway and runner goes under load, by stage of a prediction.

Needs py-spy (0.4) in some environment: --py-spy PATH, or on the PATH. It samples both processes under a closed loop of
tiny on 32 connections and of resnet50 on 8; each sample counts for the stage of the innermost frame that has one.
Waiting is no CPU time and is not sampled: queue is what queueing costs, not how long a request waits.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import processes, steady
from benchmarks.ending import unwind_on_sigterm
from benchmarks.measurements import Bench, gateway_processes
from gateway.demo.process import RUNNER

LOADS = (("tiny", 32), ("resnet50", 8))
STAGES = (
    ("compute", ("compilers/targets/",)),
    ("encode", ("gateway/codec/v2_reply",)),
    ("decode", ("gateway/codec/", "gateway/tensors", "gateway/bodies")),
    (
        "metrics",
        (
            "gateway/statistics",
            "gateway/counts",
            "gateway/series",
            "gateway/metrics",
            "gateway/accounts",
            "gateway/logs",
        ),
    ),
    ("hop", ("gateway/running/", "gateway/batching/flight", "gateway/batching/batch.py", "gateway/fronts/")),
    ("queue", ("gateway/batching/", "gateway/routing/", "gateway/admission", "gateway/serve.py")),
    ("parse", ("gateway/fastlane", "gateway/httpd/", "gateway/auth", "uvicorn/")),
)
"""Stage -> parts of paths; the first that matches a frame counts. Parse: reading HTTP and writing it, the way in."""

OTHER = "event loop and other"


def stage(stack: Sequence[str]) -> str:
    """`stack`: frames from the outermost to the innermost, as py-spy writes them."""
    for frame in reversed(stack):
        for name, parts in STAGES:
            if any(part in frame for part in parts):
                return name
    return OTHER


def shares(raw: str) -> Counter[str]:
    """Samples by stage out of py-spy's raw format: `frame;frame;... count` in each line."""
    found: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdigit():
            found[stage(stack.split(";"))] += int(count)
    return found


def sampled(py_spy: str, kinds: Mapping[str, Sequence[int]], seconds: float, folder: Path) -> dict[str, Counter[str]]:
    """Samples by stage for each kind of process; all the processes at once."""
    running = []
    for kind, pid in ((kind, pid) for kind, pids in kinds.items() for pid in pids):
        out = folder / f"{pid}.raw"
        command = [py_spy, "record", "--pid", str(pid), "--format", "raw", "--rate", "250", "--nonblocking"]
        command += ["--duration", str(max(1, int(seconds))), "--output", str(out)]
        running.append((kind, out, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)))
    found: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    for kind, out, process in running:
        process.wait()
        found[kind] += shares(out.read_text()) if out.exists() else Counter()
    return found


def table(found: Mapping[str, Counter[str]]) -> str:
    """Each kind's shares of its own samples, and its share of all."""
    totals = {kind: sum(counts.values()) for kind, counts in found.items()}
    everything = max(1, sum(totals.values()))
    heads = [f"{kind} ({totals[kind] / everything:.0%} of all samples)" for kind in found]
    lines = [f"| stage | {' | '.join(heads)} |", "|---" * (len(found) + 1) + "|"]
    together: Counter[str] = sum(found.values(), Counter())
    for name, _ in together.most_common():
        cells = [f"{counts[name] / totals[kind]:.0%}" if counts[name] else "" for kind, counts in found.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiles", description=__doc__)
    parser.add_argument("--py-spy", default=shutil.which("py-spy"), help="the program (default: the one on the PATH)")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument(
        "--subjects", nargs="+", choices=[name for name, _ in LOADS], default=[name for name, _ in LOADS]
    )
    asked = parser.parse_args()
    unwind_on_sigterm()
    if asked.py_spy is None:
        sys.exit(
            "py-spy is not on the PATH: pip install py-spy in an environment of its own, then --py-spy PATH/bin/py-spy"
        )
    with tempfile.TemporaryDirectory(prefix="forgeway-profile-") as name:
        folder = Path(name)
        bench = Bench(folder, 1, 2, lambda text: print(text, file=sys.stderr, flush=True))
        try:
            for subject, connections in LOADS:
                if subject in asked.subjects:
                    profile(bench, subject, connections, asked.seconds, asked.py_spy, folder)
        finally:
            bench.close()


def profile(bench: Bench, name: str, connections: int, seconds: float, py_spy: str, folder: Path) -> None:
    subject, _ = bench.compiled(name)
    questions = steady.questions(bench.client, bench.gateway.port, [subject], folder)
    steady.run(bench.gateway.port, questions, None, 1.0, folder)
    kinds = {"gateway": gateway_processes(bench.gateway), "runner": bench.gateway.pids(RUNNER)}
    load, out = steady.start(bench.gateway.port, questions, None, seconds + 3, folder, connections=connections)
    before = {kind: processes.cpu_s(pids) for kind, pids in kinds.items()}
    found = sampled(py_spy, kinds, seconds, folder)
    spent = {kind: processes.cpu_s(pids) - before[kind] for kind, pids in kinds.items()}
    answered = steady.finished(load, out)
    print(f"{name}, {connections} connections, {answered.rate:.0f} answers/s while sampled; CPU seconds: " + ", ".join(
        f"{kind} {used:.1f}" for kind, used in spent.items()))  # fmt: skip
    print(table(found))


if __name__ == "__main__":
    main()

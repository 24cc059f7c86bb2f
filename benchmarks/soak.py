"""`python -m benchmarks.soak --minutes 30`: steady load at 70 % of capacity; is latency steady and memory flat?

Two models in turn (tiny, digits), every answer checked, memory of every process read every 10 seconds. Verdicts: p99
over p50 of each model <= 3 while the gateway keeps up, no error, the same processes from end to end, and RSS of each
that does not grow: the line fitted after the first fifth rises by no more than 2 % or 2 MiB over the whole soak. (PSS
is told as well; it also moves with other processes that share pages.)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import machine, processes, steady
from benchmarks.ending import unwind_on_sigterm
from benchmarks.models import SUBJECTS
from benchmarks.rounds import compile_subject
from benchmarks.steady import Paced
from gateway.client import Client
from gateway.demo.process import GatewayProcess

RESULTS = Path(__file__).with_name("results")
RATIO, SHARE = 3.0, 0.7
MIB = 1 << 20


@dataclass
class Memory:
    """One process: seconds since the start of the load, and bytes then."""

    name: str
    at: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    pss: list[int] = field(default_factory=list)

    def growth(self, kind: str, over_s: float) -> float:
        """Bytes by which the fitted line rises over `over_s`; the first fifth, while caches fill, is left out."""
        at, values = np.array(self.at), np.array(getattr(self, kind), dtype=float)
        kept = at >= at[0] + (at[-1] - at[0]) / 5
        if kept.sum() < 3:
            return float(values[-1] - values[0])
        return float(np.polyfit(at[kept], values[kept], 1)[0] * over_s)

    def flat(self, over_s: float) -> bool:
        return self.growth("rss", over_s) <= max(0.02 * float(np.mean(self.rss)), 2 * MIB)


@dataclass(frozen=True)
class Soak:
    capacity: float
    rate: float
    minutes: float
    paced: Paced
    memories: Mapping[int, Memory]
    came_or_went: Sequence[str]

    def verdicts(self) -> Iterator[tuple[str, str, bool]]:
        """What was asked, what was found, whether it holds."""
        for model in self.paced.totals:
            ratio = self.paced.ratio(model)
            yield f"{model}: p99 / p50 <= {RATIO:g}", f"{ratio:.2f}", ratio <= RATIO
            p50, full = self.paced.totals[model]["p50_s"], steady.CONNECTIONS / self.capacity
            yield (
                f"{model}: p50 below the time of an answer at capacity",
                f"{p50 * 1e3:.2f} of {full * 1e3:.2f} ms",
                p50 < full,
            )
        count = sum(total["count"] for total in self.paced.totals.values())
        yield (
            "no error and no wrong answer",
            f"{self.paced.failed} of {count + self.paced.failed}",
            not self.paced.failed,
        )
        gone = "; ".join(self.came_or_went)
        yield "the same processes all the time", gone or f"{len(self.memories)}", not gone
        for pid, memory in self.memories.items():
            if len(memory.at) > 2:
                grown = ", ".join(
                    f"{kind} {memory.growth(kind, self.minutes * 60) / MIB:+.1f}" for kind in ("rss", "pss")
                )
                size = f"{memory.rss[-1] / MIB:.0f} MiB RSS, {memory.pss[-1] / MIB:.0f} PSS"
                yield f"memory flat: {memory.name} ({pid})", f"{grown} MiB of {size}", memory.flat(self.minutes * 60)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--share", type=float, default=SHARE, help="of the measured capacity (default 0.7)")
    parser.add_argument("--poisson", action="store_true", help="random arrivals instead of even ones")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two readings of memory")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=["tiny", "digits"])
    parser.add_argument("--flag", action="append", default=[], help="for `forgeway serve`, e.g. --flag=--gateways=2")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    asked = parser.parse_args()
    unwind_on_sigterm()
    subjects = [SUBJECTS[name]() for name in asked.subjects]
    with tempfile.TemporaryDirectory(prefix="forgeway-soak-") as name:
        folder = Path(name)
        with (
            GatewayProcess(folder / "data", flags=asked.flag) as gateway,
            Client(gateway.url, timeout=120) as client,
        ):
            for subject in subjects:
                compile_subject(client, subject, folder, say)
            questions = steady.questions(client, gateway.port, subjects, folder)
            capacity = steady.capacity(gateway.port, questions, 8.0, folder)
            rate = asked.share * capacity
            say(f"capacity {capacity:.0f}/s; {asked.minutes:g} minutes at {rate:.0f}/s")
            load, out = steady.start(gateway.port, questions, rate, asked.minutes * 60, folder, poisson=asked.poisson)
            try:
                memories, came_or_went = watch(gateway, load, out, asked.every)
            finally:
                load.kill()
            soak = Soak(capacity, rate, asked.minutes, steady.finished(load, out), memories, came_or_went)
    facts = machine.facts() | {"arrivals": "random (Poisson)" if asked.poisson else "even"}
    asked.out.mkdir(parents=True, exist_ok=True)
    stem = asked.out / f"{facts['date']}-soak-{machine.slug(facts)}"
    stem.with_name(f"{stem.name}.md").write_text(markdown(soak, facts))
    stem.with_name(f"{stem.name}.json").write_text(json.dumps({"machine": facts, **asdict(soak)}, indent=1) + "\n")
    print(markdown(soak, facts))
    sys.exit(0 if all(held for _, _, held in soak.verdicts()) else 1)


def watch(
    gateway: GatewayProcess, load: subprocess.Popen[bytes], out: Path, every: float
) -> tuple[dict[int, Memory], list[str]]:
    """Memory of every process of the gateway until the load ends, and which ended or came meanwhile. What the load says
    of each minute is told as soon as it says it."""
    memories: dict[int, Memory] = {}
    told = 0
    came_or_went: list[str] = []
    begun = time.monotonic()
    while load.poll() is None:
        at, alive = time.monotonic() - begun, {gateway.pid, *gateway.pids()}
        for pid in sorted(alive):
            if pid not in memories:
                memories[pid] = Memory(processes.name(pid))
                if at > every:
                    came_or_went.append(f"{memories[pid].name} ({pid}) came after {at:.0f} s")
            memories[pid].at.append(at)
            memories[pid].rss.append(processes.rss_bytes(pid))
            memories[pid].pss.append(processes.pss_bytes(pid))
        for pid, memory in memories.items():
            if pid not in alive and memory.at[-1] > at - 1.5 * every and memory.at[-1] < at:
                came_or_went.append(f"{memory.name} ({pid}) ended after {at:.0f} s")
        for line in (lines := complete_lines(out))[told:]:
            say(minute(line, memories.values()))
        told = len(lines)
        try:
            load.wait(every)
        except subprocess.TimeoutExpired:
            continue
    return memories, came_or_went


def complete_lines(out: Path) -> list[str]:
    return [line for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]


def minute(line: str, memories: Iterable[Memory]) -> str:
    """One line of the load's, and how large every process is by now, in words."""
    one = json.loads(line)
    p50, p99, longest = (one[name] * 1e3 for name in ("p50_s", "p99_s", "max_s"))
    when = f"minute {one['window'] + 1}" if one["window"] >= 0 else "all"
    sizes = ", ".join(f"{memory.name.rpartition('.')[2]} {memory.rss[-1] / MIB:.0f}" for memory in memories)
    return (
        f"{when}: {one['model']} {one['rate']:.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ({p99 / p50:.1f}x), longest "
        f"{longest:.0f}, {one['failed']} failed; RSS in MiB: {sizes}"
    )


def markdown(soak: Soak, facts: Mapping[str, str]) -> str:
    lines = ["# Soak", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += [
        "",
        f"{soak.minutes:g} minutes at {soak.rate:.0f} requests/s: {soak.rate / soak.capacity:.0%} of the capacity",
    ]
    lines += [f"of {soak.capacity:.0f}/s that the same client measured before. Every answer was checked.", ""]
    lines += ["| asked | found | |", "|---|---|---|"]
    lines += [f"| {what} | {found} | {'met' if held else '**missed**'} |" for what, found, held in soak.verdicts()]
    if soak.paced.faults:
        lines += ["", *(f"- {count} x {fault}" for fault, count in soak.paced.faults.items())]
    lines += [
        "",
        "| minute | model | answers | p50 ms | p99 ms | p99 / p50 | longest ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in soak.paced.windows:
        times = [each[name] * 1e3 for name in ("p50_s", "p99_s", "max_s")]
        cells = (each["window"] + 1, each["model"], each["count"], f"{times[0]:.2f}", f"{times[1]:.2f}",
                 f"{times[1] / times[0]:.2f}", f"{times[2]:.1f}")  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

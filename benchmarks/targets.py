"""`python -m benchmarks.targets`: every row of the target table (README.md) with its result beside it, met or missed.

The rows that name peers come from the newest results of `python -m benchmarks.peers` on this kind of machine; a row
whose measurement is not there says which command makes it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine, measurements, wrk
from benchmarks.ending import unwind_on_sigterm

BEGUN = time.monotonic()
RESULTS = Path(__file__).with_name("results")
SIGNS: Mapping[str, Callable[[float, float], bool]] = {"<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b}


@dataclass(frozen=True)
class Row:
    """`found` None: not measured, and `how` says why. `text`: the figure with its spread and unit."""

    target: str
    sign: str
    bound: float
    found: float | None
    text: str
    how: str

    @property
    def verdict(self) -> str:
        if self.found is None:
            return "not measured"
        return "met" if SIGNS[self.sign](self.found, self.bound) else "**missed**"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repetitions (default 3)")
    parser.add_argument("--seconds", type=int, default=2, help="of one measurement (default 2)")
    parser.add_argument("--only", nargs="+", choices=measurements.ALL, default=list(measurements.ALL))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    asked = parser.parse_args()
    unwind_on_sigterm()
    facts = machine.facts() | {"load generator": wrk.client(), "rounds": str(asked.rounds)}
    rows = list(peer_rows(asked.out, machine.slug(facts)))
    with tempfile.TemporaryDirectory(prefix="forgeway-targets-") as folder, ExitStack() as stack:
        bench = stack.enter_context(closing(measurements.Bench(Path(folder), asked.rounds, asked.seconds, say)))
        for name in asked.only:
            say(name)
            try:
                rows += [Row(*found) for found in measurements.ALL[name](bench)]
            except Exception as failed:
                rows.append(
                    Row(name, "<=", 0.0, None, "", f"failed: {type(failed).__name__}: {failed}".splitlines()[0])
                )
    asked.out.mkdir(parents=True, exist_ok=True)
    stem = asked.out / f"{facts['date']}-targets-{machine.slug(facts)}"
    stem.with_name(f"{stem.name}.md").write_text(markdown(rows, facts))
    content = {"machine": facts, "rows": [asdict(row) | {"verdict": row.verdict} for row in rows]}
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(markdown(rows, facts))
    say(f"written: {stem}.md and .json")


def peer_rows(folder: Path, slug: str) -> Iterator[Row]:
    """What the newest results beside peers say of the targets that name them."""
    there = (*RESULTS.glob(f"*-peers-{slug}.json"), *folder.glob(f"*-peers-{slug}.json"))
    newest = max(there, key=lambda file: file.name, default=None)
    if newest is None:
        yield Row("ratios to peers", ">=", 0.0, None, "", "make bench-peers")
        return
    for row in json.loads(newest.read_text())["targets"]:
        how = f"beside {row['best']}, {newest.name}"
        yield Row(row["title"], row["sign"], row["bound"], row["found"], row["text"], how)


def markdown(rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    lines = ["# Targets", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", "| target | bound | is | | how |", "|---|---|---|---|---|"]
    for row in rows:
        sign = {"<=": "≤", ">=": "≥"}[row.sign]
        lines.append(f"| {row.target} | {sign} {row.bound:g} | {row.text} | {row.verdict} | {row.how} |")
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGUN:4.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

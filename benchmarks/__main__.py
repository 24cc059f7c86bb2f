"""`python -m benchmarks`: through HTTP against the bare session, interleaved in the same minutes, as ratios."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import machine, rounds, table
from benchmarks.models import SUBJECTS

RESULTS = Path(__file__).with_name("results")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved repetitions of everything (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (default 3)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forgeway-bench-") as folder:
        results = rounds.measure(
            [SUBJECTS[name]() for name in asked.subjects], Path(folder), asked.rounds, asked.seconds, say
        )
    facts = machine.facts()
    asked.out.mkdir(parents=True, exist_ok=True)
    stem = asked.out / f"{facts['date']}-{machine.slug(facts)}"
    stem.with_name(f"{stem.name}.md").write_text(table.markdown(results, facts))
    stem.with_name(f"{stem.name}.json").write_text(table.document(results, facts))
    print(table.markdown(results, facts))
    say(f"written: {stem}.md and .json")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

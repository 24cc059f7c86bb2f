"""`python -m benchmarks.peers`: Forgeway, the bare session and other servers, same models, in turns, as ratios."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine, wrk
from benchmarks.ending import unwind_on_sigterm
from benchmarks.models import SUBJECTS, from_files
from benchmarks.peers import bars, table, walk
from benchmarks.peers.roster import PEERS

BEGUN = time.monotonic()
RESULTS = Path(__file__).parents[1] / "results"
LOADS = {"tiny": (1, 8, 32)}
"""Connections; other subjects: 1 and 8."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=["tiny", "resnet50", "encoder"])
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=FILE.onnx,SAMPLES.npz", help="one of your own as well"
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repetitions of everything (default 3)")
    parser.add_argument(
        "--seconds", type=int, default=2, help="of one measurement of a slow model (default 2; fast: 1)"
    )
    parser.add_argument("--minutes", type=float, default=11.5, help="no round is begun that would end later (11.5)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    asked = parser.parse_args()
    unwind_on_sigterm()
    subjects = [SUBJECTS[name]() for name in asked.subjects] + [from_files(text) for text in asked.model]
    peers = [PEERS[name] for name in asked.peers]
    with tempfile.TemporaryDirectory(prefix="forgeway-bench-") as folder:
        outcome = walk.measure(
            subjects, peers, LOADS, Path(folder), asked.rounds, asked.seconds, asked.minutes * 60, say
        )
    facts = machine.facts() | {"load generator": wrk.client(), "rounds": str(outcome.turns)}
    facts["seconds"] = f"{asked.seconds} for each measurement of a slow model, 1 of a fast one"
    asked.out.mkdir(parents=True, exist_ok=True)
    stem = asked.out / f"{facts['date']}-peers-{machine.slug(facts)}"
    stem.with_name(f"{stem.name}.md").write_text(table.markdown(outcome, facts, f"{stem.name}.svg"))
    stem.with_name(f"{stem.name}.json").write_text(table.document(outcome, facts))
    stem.with_name(f"{stem.name}.svg").write_text(bars.svg(table.groups(outcome)))
    print(table.markdown(outcome, facts, f"{stem.name}.svg"))
    say(f"written: {stem}.md, .json and .svg")


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGUN:4.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""Requests made from `GET /openapi.json` against a live gateway: `python -m tests.clients.fuzz --cases 10000`.

No answer may be a 5xx but a deliberate 501 or 503, none may take longer than TIMEOUT_S, every refusal is JSON with
words, memory stays flat and predictions answer afterwards. schemathesis runs in the clients' environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from gateway.client import Client
from tests.clients.models import MODELS, Served, serving

ROOT = Path(__file__).parents[2]
SCHEMATHESIS = ROOT / ".venv-clients/bin/schemathesis"
HOOKS = Path(__file__).parent / "scripts/fuzz_hooks.py"
NAMES = ("simple", "identity_fp32", "simple_identity", "come_and_go")
TIMEOUT_S = 20
STREAMS = "/events$"
"""Server-sent events of a job last as long as the job: they are asked by tests of their own."""


@dataclass(frozen=True)
class Outcome:
    """What a run found. `grown_bytes`: memory of the gateway and its runners, after against before."""

    cases: int
    statuses: dict[str, int]
    slowest_s: float
    slowest: str
    grown_bytes: int
    failed: bool
    report: str

    def line(self) -> str:
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.cases} cases ({statuses}); slowest {self.slowest_s:.2f} s ({self.slowest}); "
            f"memory {self.grown_bytes / 2**20:+.1f} MiB; {'FAILED' if self.failed else 'nothing found'}"
        )


def fuzz(gateway: Served, folder: Path, examples: int, seed: int, phases: str = "examples,coverage,fuzzing") -> Outcome:
    """At most `examples` made cases for each operation, and the fixed ones of the coverage phase once."""
    counts = folder / "counts.json"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FORGEWAY_")}
    environment |= {"SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": str(HOOKS.parent)}
    environment |= {"FORGEWAY_FUZZ_COUNTS": str(counts)}
    command = [str(SCHEMATHESIS), "run", f"{gateway.url}/openapi.json", "--no-color", "--checks", "answers_in_words"]
    command += ["--phases", phases, "--max-examples", str(examples), "--seed", str(seed), "--warnings", "off"]
    command += ["--request-timeout", str(TIMEOUT_S), "--exclude-path-regex", STREAMS, "--continue-on-failure"]
    command += ["--generation-database", "none", "--suppress-health-check", "all", "--no-shrink"]
    counts.unlink(missing_ok=True)
    before = _memory(gateway)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    facts = json.loads(counts.read_text())
    return Outcome(
        facts["cases"],
        facts["statuses"],
        facts["slowest_s"],
        facts["slowest"],
        _memory(gateway) - before,
        done.returncode != 0,
        done.stdout + done.stderr,
    )


def still_answers(gateway: Served) -> None:
    """Healthy, and right. Raises AssertionError."""
    assert httpx.get(f"{gateway.url}/v2/health/ready").status_code == 200
    with Client(gateway.url) as client:
        x = np.ones((1, 3), np.float32)
        assert client.predict("identity_fp32", {"INPUT0": x})["OUTPUT0"].tolist() == x.tolist()


def _memory(gateway: Served) -> int:
    return gateway.pss_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    total, failed, seed = 0, False, asked.seed
    statuses: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(folder, "--shared-memory", names=NAMES) as gateway, Client(gateway.url) as client:
            while total < asked.cases and not failed:
                phases = "examples,coverage,fuzzing" if seed == asked.seed else "fuzzing"
                outcome = fuzz(gateway, folder, examples=80, seed=seed, phases=phases)
                total, failed, seed = total + outcome.cases, outcome.failed, seed + 1
                statuses.update(outcome.statuses)
                print(f"seed {seed - 1}: {outcome.line()}", flush=True)
                if failed:
                    print(outcome.report)
                known = {model["name"] for model in client.models()}
                for gone in set(NAMES) - known:
                    client.register(gone, MODELS[gone].SerializeToString())
            still_answers(gateway)
    print(f"{total} cases in all ({dict(sorted(statuses.items()))}): {'FAILED' if failed else 'nothing found'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

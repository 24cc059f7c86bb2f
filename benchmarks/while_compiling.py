"""What serving feels of a compilation: p99 of one subject while another model is compiled, against idle.

`python -m benchmarks.while_compiling [--subjects tiny digits] [--rounds 5] [--seconds 4] [--durations 2]`

One gateway with its defaults. The subject is registered and compiled; then windows of load take turns: idle, compiling,
compiling, idle, ... For every window that compiles a new network is registered (other weights each time, so that no
finished step is found again) and cancelled when the window is over; a window begins with a step, another one each time,
and counts only if the compilation was still running at its end. The ratio is taken between neighbours, and the table
tells its median, least and greatest.

`--durations` asks the other question: how long a compilation takes when nobody is served, and under constant load.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figures, Spread, ratios
from benchmarks.models import SUBJECTS, Subject
from benchmarks.networks import mobilenet_v2, smooth_images
from benchmarks.rounds import compile_subject, figures_of, infer_request
from gateway.client import Client
from gateway.demo.process import GatewayProcess

CONNECTIONS = (1, 8)
STEPS = ("transform", "outputs", "agree", "measure", "plan")
"""Where windows begin: what works on the graph, runs the model, and times it."""
OTHER = "meanwhile"
TARGET = 1.5
PATIENCE_S = 300.0


class Meanwhile:
    """Compiles a network that was never seen, until told to stop."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._model, self._samples = folder / f"{OTHER}.onnx", folder / f"{OTHER}.npz"
        np.savez(self._samples, image=smooth_images(64, seed=1))
        self._seed = time.time_ns() % 1_000_000_000

    def start(self, step: str) -> None:
        """Returns once `step` has begun."""
        self._register()
        until = time.monotonic() + PATIENCE_S
        while not self._begun(step):
            if time.monotonic() > until:
                raise RuntimeError(f"no {step} began within {PATIENCE_S:g} s")
            time.sleep(0.1)

    def whole(self) -> float:
        """Compile one, without a search, to its end; the seconds from registration."""
        began = time.monotonic()
        version = self._register(search={"effort": "off"})
        self._client.wait(OTHER, version, timeout=3 * PATIENCE_S)
        took = time.monotonic() - began
        self._client.delete(OTHER)
        return took

    def stop(self) -> bool:
        """End it; whether it was still at work."""
        running = self._running()
        self._client.delete(OTHER)
        while self._running():
            time.sleep(0.05)
        time.sleep(1.0)  # its sessions are closed, its children gone
        return bool(running)

    def _register(self, **policy: Any) -> str:
        self._seed += 1
        self._model.write_bytes(mobilenet_v2(seed=self._seed).SerializeToString())
        asked = {"gate": {"cosine": 0.9}} | policy
        return str(self._client.register(OTHER, self._model, samples=self._samples, policy=asked)["version"])

    def _begun(self, step: str) -> bool:
        jobs = [job["id"] for job in self._running() if job["kind"] == "compile"]
        events = (event for job in jobs for event in self._client.events(job, follow=False))
        return any(event.step == step and event.status == "started" for event in events)

    def _running(self) -> list[dict[str, Any]]:
        return [job for job in self._client.jobs(name=OTHER) if job["state"] == "running"]


def measure(
    gateway: GatewayProcess,
    client: Client,
    subject: Subject,
    connections: int,
    rounds: int,
    seconds: float,
    folder: Path,
) -> tuple[list[Figures], list[Figures]]:
    """Figures idle and while compiling, neighbours in time."""
    request = folder / "request.bin"
    request.write_bytes(infer_request(gateway.port, subject, None))
    meanwhile = Meanwhile(client, folder)
    still: list[Figures] = []
    busy: list[Figures] = []

    def idle() -> Figures:
        return figures_of("benchmarks.load", str(gateway.port), str(connections), str(seconds), str(request))

    def compiling() -> Figures | None:
        meanwhile.start(STEPS[len(still) % len(STEPS)])
        found = idle()
        return found if meanwhile.stop() else None

    while len(still) < rounds:
        if len(still) % 2 == 0:
            quiet, other = idle(), compiling()
        else:
            other, quiet = compiling(), idle()
        if other is not None:
            step = STEPS[len(still) % len(STEPS)]
            still.append(quiet)
            busy.append(other)
            p99s = f"p99 {quiet.p99_s * 1e3:.2f} ms, {other.p99_s * 1e3:.2f} compiling"
            say(f"{subject.name} c={connections} {step}: {p99s}")
    return still, busy


def durations(
    gateway: GatewayProcess, client: Client, subject: Subject, connections: int, rounds: int, folder: Path
) -> tuple[list[float], list[float]]:
    """Seconds of a whole compilation, idle and under load, in turns."""
    request = folder / "request.bin"
    request.write_bytes(infer_request(gateway.port, subject, None))
    meanwhile = Meanwhile(client, folder)
    load = [sys.executable, "-m", "benchmarks.load", str(gateway.port), str(connections), "3600", str(request)]
    idle: list[float] = []
    loaded: list[float] = []
    for _ in range(rounds):
        idle.append(meanwhile.whole())
        with subprocess.Popen(load, stdout=subprocess.DEVNULL) as process:
            try:
                loaded.append(meanwhile.whole())
            finally:
                process.kill()
    return idle, loaded


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.while_compiling", description=__doc__.split("\n")[0])
    parser.add_argument("--subjects", nargs="+", default=["tiny", "digits"], choices=sorted(SUBJECTS))
    parser.add_argument("--connections", nargs="+", type=int, default=CONNECTIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--durations", type=int, default=0, metavar="ROUNDS", help="how long compiling takes instead")
    options = parser.parse_args(argv)
    if options.durations:
        print("| subject | c | seconds of a compilation, idle | under load | ratio |\n|---|---|---|---|---|")
    else:
        print("| subject | c | p50 idle ms | p99 idle ms | p99 compiling ms | p99 ratio | p50 ratio | rate ratio |")
        print("|---|---|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="forgeway-while-") as folder,
        GatewayProcess(Path(folder) / "data") as gateway,
        Client(gateway.url, timeout=120) as client,
    ):
        for name in options.subjects:
            subject = SUBJECTS[name]()
            compile_subject(client, subject, Path(folder), say)
            for connections in options.connections:
                if options.durations:
                    idle, loaded = durations(gateway, client, subject, connections, options.durations, Path(folder))
                    slower = Spread.over([b / a for a, b in zip(idle, loaded, strict=True)])
                    print(
                        f"| {name} | {connections} | {Spread.over(idle).text('.1f')} "
                        f"| {Spread.over(loaded).text('.1f')} | {slower.text()} |",
                        flush=True,
                    )
                    continue
                still, busy = measure(
                    gateway, client, subject, connections, options.rounds, options.seconds, Path(folder)
                )
                p50, p99 = (Spread.over([getattr(one, what) for one in still]) for what in ("p50_s", "p99_s"))
                compiling = Spread.over([one.p99_s for one in busy])
                print(
                    f"| {name} | {connections} | {p50.text('.2f', 1e3)} | {p99.text('.2f', 1e3)} "
                    f"| {compiling.text('.2f', 1e3)} | {ratios(busy, still, 'p99_s').text()} "
                    f"| {ratios(busy, still, 'p50_s').text()} | {ratios(busy, still).text()} |",
                    flush=True,
                )
    if not options.durations:
        print(f"\nTarget: p99 ratio at most {TARGET}. Windows begin with {', '.join(STEPS)}, in turns.")


if __name__ == "__main__":
    main()

"""The measuring walk: serve every subject with defaults only, then measure everything in turns, round after round."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figures
from benchmarks.models import Subject
from gateway.client import Client
from gateway.client.tensors import LENGTH_HEADER, encode
from gateway.demo.asking import first_answer
from gateway.demo.process import GatewayProcess, free_port
from model_store.entities import REFERENCE, Variant
from model_store.store import ModelStore

CONNECTIONS = (1, 8, 32)
Say = Callable[[str], None]


@dataclass
class Result:
    """One subject. Measurements by name, one Figures a round: `bare`, `bare served`, `reference c=8`, ..."""

    subject: str
    note: str
    model_bytes: int
    compile_s: float
    first_answer_s: float
    variants: Sequence[Mapping[str, Any]]
    served: str
    rounds: dict[str, list[Figures]] = field(default_factory=dict)

    def add(self, name: str, figures: Figures) -> None:
        self.rounds.setdefault(name, []).append(figures)


@dataclass(frozen=True)
class Results:
    subjects: Sequence[Result]
    echo: Mapping[str, list[Figures]]
    ready_s: float
    idle_pss_bytes: int


def measure(subjects: Sequence[Subject], folder: Path, rounds: int, seconds: float, say: Say) -> Results:
    with GatewayProcess(folder / "data") as gateway, Client(gateway.url, timeout=120) as client:
        results = [compile_subject(client, subject, folder, say) for subject in subjects]
        idle = gateway.pss_bytes()
        store = ModelStore.open(gateway.data)
        try:
            specs = [
                bare_specs(store, subject, result, folder, seconds)
                for subject, result in zip(subjects, results, strict=True)
            ]
        finally:
            store.close()
        echo: dict[str, list[Figures]] = {}
        for number in range(rounds):
            for subject, result, spec in zip(subjects, results, specs, strict=True):
                say(f"round {number + 1} of {rounds}: {subject.name}")
                one_round(gateway.port, subject, result, spec, folder, seconds)
                if subject.name == "tiny":
                    echo_round(subject, folder, seconds, echo)
        return Results(results, echo, gateway.ready_s, idle)


def compile_subject(client: Client, subject: Subject, folder: Path, say: Say) -> Result:
    """Register with samples, wait for every variant; what a request of one row is then answered by."""
    model, samples = folder / f"{subject.name}.onnx", folder / f"{subject.name}.npz"
    model.write_bytes(subject.model)
    np.savez(samples, **subject.samples)
    say(f"{subject.name}: compiling")
    started = time.monotonic()
    version = client.register(subject.name, model, samples=samples, policy=subject.policy)["version"]
    first_answer(client.url, subject.name, subject.row)
    first_answer_s = time.monotonic() - started
    facts = client.wait(subject.name, version)
    took = time.monotonic() - started
    if facts["status"] != "ready":
        raise RuntimeError(f"{subject.name} ended {facts['status']}: {facts.get('reason')}")
    time.sleep(1)  # the last published variant is loaded by then
    served = client.predict(subject.name, subject.row).variant or REFERENCE
    for variant in facts["variants"]:
        say(f"  {variant['id']}: {variant['verdict']}: {variant['reason']}")
    return Result(
        subject.name, subject.note, len(subject.model), took, first_answer_s, facts["variants"], served
    )  # fmt: skip


def bare_specs(store: ModelStore, subject: Subject, result: Result, folder: Path, seconds: float) -> dict[str, Path]:
    """What `benchmarks.bare` needs to open the reference and the variant that serves one row."""
    version = store.catalog.resolve(subject.name, None).version
    inputs = folder / f"{subject.name}.row.npz"
    np.savez(inputs, **subject.row)
    specs = {}
    for name, variant_id in (("bare", REFERENCE), ("bare served", result.served)):
        variant: Variant = store.catalog.variant(subject.name, version, variant_id)
        assert variant.artifact is not None and variant.plan is not None, f"{variant_id} has nothing to open"
        spec = {
            "target": variant.target,
            "files": {key: str(path) for key, path in store.artifact_paths(variant.artifact).items()},
            "options": dict(variant.artifact.options),
            "threads": variant.plan.threads,
            "inputs": str(inputs),
            "seconds": seconds,
        }
        specs[name] = folder / f"{subject.name}.{name.replace(' ', '-')}.json"
        specs[name].write_text(json.dumps(spec))
    return specs


def one_round(
    port: int, subject: Subject, result: Result, specs: Mapping[str, Path], folder: Path, seconds: float
) -> None:
    for name, spec in specs.items():
        result.add(name, figures_of("benchmarks.bare", str(spec)))
    for connections in CONNECTIONS:
        for name, pinned in (("reference", REFERENCE), ("served", None)):
            request = folder / "request.bin"
            request.write_bytes(infer_request(port, subject, pinned))
            figures = figures_of("benchmarks.load", str(port), str(connections), str(seconds), str(request))
            if figures.errors:
                raise RuntimeError(f"{subject.name} {name} c={connections}: {figures.errors} requests failed")
            result.add(f"{name} c={connections}", figures)


def echo_round(subject: Subject, folder: Path, seconds: float, echo: dict[str, list[Figures]]) -> None:
    with echo_server() as port:
        request = folder / "echo.bin"
        request.write_bytes(infer_request(port, subject, None))
        for connections in CONNECTIONS:
            figures = figures_of("benchmarks.load", str(port), str(connections), str(seconds), str(request))
            echo.setdefault(f"c={connections}", []).append(figures)


def infer_request(port: int, subject: Subject, variant: str | None) -> bytes:
    """A whole HTTP request, V2 with binary tensors both ways."""
    body, head = encode(subject.row, None, {} if variant is None else {"variant": variant}, None)
    lines = (
        f"POST /v2/models/{subject.name}/infer HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        f"{LENGTH_HEADER}: {head}",
        "content-type: application/octet-stream",
        f"content-length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def figures_of(module: str, *args: str) -> Figures:
    done = subprocess.run([sys.executable, "-m", module, *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
    return Figures(**json.loads(done.stdout))


@contextmanager
def echo_server() -> Iterator[int]:
    import socket

    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.echo", str(port)])
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()

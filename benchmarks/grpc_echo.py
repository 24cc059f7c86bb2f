"""`python -m benchmarks.grpc_echo`: the tiny model through gRPC against a bare grpc.aio echo of the same messages.

Both servers run all the time, each is asked in turn by the same load generator (grpc_load.py), round after round. The
target is a ratio of rates of at least 0.9. Also said: CPU microseconds of the asked server's process for each answer,
which a busy machine disturbs less, and the idle memory of gateway and runner with gRPC served and without.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc

from benchmarks.figures import Figures, Spread
from benchmarks.models import Subject, tiny
from benchmarks.rounds import compile_subject, figures_of
from gateway.client import Client
from gateway.demo.process import GatewayProcess, free_port
from gateway.grpc.messages import SERVICE, message
from model_store.datatypes import v2_name

PATH = f"/{SERVICE}/ModelInfer"
LOADS = ((1, 1), (1, 8), (4, 8))
"""(connections, requests under way on each)."""

TARGET = 0.9
_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


class Asked(NamedTuple):
    figures: Figures
    cpu_us: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpc_echo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forgeway-bench-") as name:
        folder = Path(name)
        print(f"idle memory: {idle_mib(folder / 'with'):.0f} MiB with gRPC served, ", end="", flush=True)
        print(f"{idle_mib(folder / 'without', '--no-grpc'):.0f} MiB without")
        measure(folder, asked.rounds, asked.seconds)


def measure(folder: Path, rounds: int, seconds: float) -> None:
    subject, port = tiny(), free_port()
    with (
        GatewayProcess(folder / "data", flags=("--grpc-port", str(port))) as gateway,
        Client(gateway.url, timeout=120) as client,
    ):
        compile_subject(client, subject, folder, lambda text: print(text, file=sys.stderr, flush=True))
        request, answer = folder / "request.bin", folder / "answer.bin"
        request.write_bytes(infer_request(subject))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer.write_bytes(channel.unary_unary(PATH)(request.read_bytes()))
        with echo_server(answer) as (echo_port, echo_pid):
            seen: dict[tuple[str, tuple[int, int]], list[Asked]] = {}
            for _ in range(rounds):
                for load in LOADS:
                    seen.setdefault(("echo", load), []).append(ask(echo_port, echo_pid, load, seconds, request))
                    seen.setdefault(("forgeway", load), []).append(ask(port, gateway.pid, load, seconds, request))
    report(seen)


def ask(port: int, pid: int, load: tuple[int, int], seconds: float, request: Path) -> Asked:
    before = cpu_us(pid)
    figures = figures_of("benchmarks.grpc_load", str(port), *map(str, load), str(seconds), PATH, str(request))
    spent = cpu_us(pid) - before
    if figures.errors:
        raise RuntimeError(f"port {port}, {load}: {figures.errors} calls failed")
    warm = figures.rate * (seconds + 0.4)  # the warm-up of grpc_load counts no answers
    return Asked(figures, spent / warm)


def report(seen: dict[tuple[str, tuple[int, int]], list[Asked]]) -> None:
    print("| connections x calls | echo/s | forgeway/s | ratio (target 0.9) | CPU µs a call: echo | forgeway |")
    print("|---|---|---|---|---|---|")
    for load in LOADS:
        echo, ours = seen["echo", load], seen["forgeway", load]
        ratios = [one.figures.rate / other.figures.rate for one, other in zip(ours, echo, strict=True)]
        cells = (
            f"{load[0]} x {load[1]}",
            Spread.over([each.figures.rate for each in echo]).text(".0f"),
            Spread.over([each.figures.rate for each in ours]).text(".0f"),
            Spread.over(ratios).text(".2f"),
            Spread.over([each.cpu_us for each in echo]).text(".0f"),
            Spread.over([each.cpu_us for each in ours]).text(".0f"),
        )
        print("| " + " | ".join(cells) + " |")


def infer_request(subject: Subject) -> bytes:
    made = message("ModelInferRequest")(model_name=subject.name)
    for name, array in subject.row.items():
        made.inputs.add(name=name, datatype=v2_name(array.dtype), shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    serialized: bytes = made.SerializeToString()
    return serialized


def idle_mib(data: Path, *flags: str) -> float:
    """Memory (PSS) of a gateway that has just become ready, its runner included, its compile worker left out."""
    with GatewayProcess(data, flags=("--no-compile", *flags)) as gateway:
        return gateway.pss_bytes() / (1 << 20)


def cpu_us(pid: int) -> float:
    """CPU time of a process so far, its children left out."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_US


@contextmanager
def echo_server(answer: Path) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.grpc_floor", str(port), str(answer)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != b"ready":
            raise RuntimeError("the echo server did not get ready")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()

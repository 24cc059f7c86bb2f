"""What stands there to be asked: a row of the table, and how its server is reached, weighed, rested and woken."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from benchmarks.figures import Figures
from benchmarks.models import Subject
from benchmarks.peers.bodies import FORMS, Body
from benchmarks.peers.running import PeerProcess

SPINS = 0.04
"""Cores that an idle server may use before it is stopped between its turns."""


@dataclass
class Server:
    """One of the table's rows. `cells`: by (subject, connections), one Figures a round. `cpu_s`: of one answer."""

    name: str
    title: str
    form: str
    settings: str
    plain: bool = False
    version: str = ""
    start_s: float = 0.0
    idle_pss_bytes: int = 0
    idle_cores: float = 0.0
    failure: str = ""
    cells: dict[tuple[str, int], list[Figures]] = field(default_factory=dict)
    cpu_s: dict[tuple[str, int], list[float]] = field(default_factory=dict)


@dataclass
class Running:
    """How a server is asked: its port, paths and bodies (files), and which processes it is."""

    server: Server
    port: int
    paths: Mapping[str, str]
    bodies: Mapping[str, tuple[Path, Body]]
    pids: Callable[[], list[int]]
    peer: PeerProcess | None = None

    def rows(self, subject: str) -> dict[str, int]:
        """Rows so far by the variant that answered them; peers have none."""
        return {} if self.peer is not None else variant_rows(self.port, subject)


def asked(
    server: Server,
    subjects: Sequence[Subject],
    path: str,
    form: str,
    port: int,
    folder: Path,
    pids: Callable[[], list[int]],
    peer: PeerProcess | None = None,
) -> Running:
    bodies = {}
    for subject in subjects:
        body = FORMS[form].write(subject.row)
        file = folder / f"{server.name}.{subject.name}.body"
        file.write_bytes(body.content)
        bodies[subject.name] = (file, body)
    paths = {subject.name: path.format(model=subject.name) for subject in subjects}
    return Running(server, port, paths, bodies, pids, peer)


def settle(each: Running, patience_s: float = 5.0) -> None:
    """Until the server no longer works on what was under way when the load ended."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        pids = each.pids()
        before = processes.cpu_s(pids)
        time.sleep(0.1)
        if processes.cpu_s(pids) - before < 0.03:
            return


def weigh(running: Sequence[Running], seconds: float = 3.0) -> list[str]:
    """Notes memory and CPU of every idle server; the names of those that spin."""
    running = [each for each in running if not each.server.failure]
    for each in running:
        settle(each)
    before = {each.server.name: (each.pids(), processes.cpu_s(each.pids())) for each in running}
    time.sleep(seconds)
    for each in running:
        pids, spent = before[each.server.name]
        each.server.idle_cores = (processes.cpu_s(pids) - spent) / seconds
        each.server.idle_pss_bytes = sum(map(processes.pss_bytes, each.pids()))
    return [each.server.name for each in running if each.peer is not None and each.server.idle_cores > SPINS]


def rest(each: Running, rested: Sequence[str]) -> None:
    if each.peer is not None and each.server.name in rested:
        each.peer.rest()


def wake(each: Running, rested: Sequence[str]) -> None:
    if each.peer is not None and each.server.name in rested:
        each.peer.wake()


def variant_rows(port: int, model: str) -> dict[str, int]:
    """From Forgeway's own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("forgeway_batch_size_sum{") and f'model="{model}"' in line:
            variant = line.partition('variant="')[2].partition('"')[0]
            found[variant] = found.get(variant, 0) + round(float(line.rpartition(" ")[2]))
    return found

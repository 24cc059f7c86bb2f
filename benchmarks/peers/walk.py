"""The measuring walk: Forgeway compiled with defaults, every peer checked, then rounds in turns.

All servers stay up. Who burns CPU while nobody asks is stopped (SIGSTOP) except in its own turn, so that it disturbs
nobody. A round asks every server at every load, in an order that is turned around from round to round; between two
turns the server that was asked finishes what the load generator left behind.
"""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import processes, rounds, wrk
from benchmarks.figures import Figures
from benchmarks.models import Subject
from benchmarks.peers import models
from benchmarks.peers.bodies import FORMS, Body
from benchmarks.peers.roster import V2, Peer
from benchmarks.peers.running import PeerFailed, PeerProcess
from gateway.client import Client
from gateway.demo.process import GatewayProcess
from model_store.entities import REFERENCE
from model_store.store import ModelStore

FORGEWAY, BARE = "forgeway", "bare session"
AGREEMENT = 1e-3
"""Largest difference to the bare session, as a share of its largest output."""

SPINS = 0.04
"""Cores that an idle server may use before it is stopped between its turns."""

SLOW_S = 0.002
"""Models whose bare session takes longer than this are measured by whole waves."""

Say = Callable[[str], None]


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


@dataclass(frozen=True)
class Outcome:
    """`bare` and `served`: the bare sessions of the reference and of the variant that answers one row, by subject."""

    servers: Sequence[Server]
    subjects: Sequence[rounds.Result]
    bare: Mapping[str, list[Figures]]
    served: Mapping[str, list[Figures]]
    rested: Sequence[str]
    ready_s: float


@dataclass
class Running:
    """How a server is asked: its port, paths and bodies (files), and which processes it is."""

    server: Server
    port: int
    paths: Mapping[str, str]
    bodies: Mapping[str, tuple[Path, Body]]
    pids: Callable[[], list[int]]
    peer: PeerProcess | None = None


def measure(
    subjects: Sequence[Subject],
    peers: Sequence[Peer],
    loads: Mapping[str, Sequence[int]],
    folder: Path,
    turns: int,
    seconds: int,
    say: Say,
) -> Outcome:
    manifest = models.write(subjects, folder / "models")
    facts = {each["name"]: each for each in json.loads(manifest.read_text())["models"]}
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(folder / "data"))
        client = stack.enter_context(Client(gateway.url, timeout=120))
        results = [rounds.compile_subject(client, subject, folder, say) for subject in subjects]
        check_forgeway(client, subjects)
        specs = bare_specs(gateway, subjects, results, folder, seconds)
        ours = Server(FORGEWAY, "Forgeway", FORMS["v2-binary"].title, "defaults", start_s=gateway.ready_s)
        running = [asked(ours, subjects, V2, "v2-binary", gateway.port, folder, lambda: gateway_pids(gateway))]
        servers = [ours]
        for peer in peers:
            server = Server(peer.name, peer.title, FORMS[peer.form].title, peer.settings, peer.plain)
            servers.append(server)
            process = stack.enter_context(PeerProcess(peer, manifest, folder))
            try:
                running.append(started(server, process, subjects, facts, folder))
                say(f"{peer.title}: started in {server.start_s:.1f} s, its answers are right")
            except PeerFailed as failed:
                server.failure = str(failed)
                process.stop()
                say(f"{peer.title}: left out: {failed}")
        rested = weigh(running)
        say(f"stopped between their turns, for they burn CPU when idle: {', '.join(rested) or 'none'}")
        bare: dict[str, list[Figures]] = {subject.name: [] for subject in subjects}
        served: dict[str, list[Figures]] = {subject.name: [] for subject in subjects}
        for each in running:
            rest(each, rested)
        for number in range(turns):
            for subject, spec in zip(subjects, specs, strict=True):
                say(f"round {number + 1} of {turns}: {subject.name}")
                bare[subject.name].append(rounds.figures_of("benchmarks.bare", str(spec["bare"])))
                served[subject.name].append(rounds.figures_of("benchmarks.bare", str(spec["bare served"])))
                slow = bare[subject.name][0].p50_s > SLOW_S
                for connections in loads.get(subject.name, (1, 8)):
                    for each in running if number % 2 == 0 else running[::-1]:
                        one_turn(each, subject.name, connections, seconds if slow else 1, slow, rested, say)
        for each in running:
            wake(each, rested)
        return Outcome(servers, results, bare, served, rested, gateway.ready_s)


def one_turn(
    each: Running, subject: str, connections: int, seconds: int, slow: bool, rested: Sequence[str], say: Say
) -> None:
    server = each.server
    if server.failure:
        return
    wake(each, rested)
    try:
        if each.peer is not None and not each.peer.alive:
            raise PeerFailed(f"ended while it was measured: {each.peer.last_words()}")
        pids, (file, body) = each.pids(), each.bodies[subject]
        before = processes.cpu_s(pids)
        figures = asking(each, subject, file, body, connections, seconds, slow)
        settle(each)
        server.cpu_s.setdefault((subject, connections), []).append(
            (processes.cpu_s(pids) - before) / max(1, figures.count)
        )
        server.cells.setdefault((subject, connections), []).append(figures)
    except (PeerFailed, RuntimeError) as failed:
        server.failure = str(failed).splitlines()[0]
        say(f"{server.title}: left out from here: {server.failure}")
    finally:
        rest(each, rested)


def asking(each: Running, subject: str, file: Path, body: Body, connections: int, seconds: int, slow: bool) -> Figures:
    """Where not one answer came, once more and four times as long."""
    path = each.paths[subject]
    try:
        return wrk.load(each.port, path, file, body.headers, connections, seconds, slow)
    except wrk.NoAnswers:
        return wrk.load(each.port, path, file, body.headers, connections, 4 * seconds, slow)


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


def started(
    server: Server, process: PeerProcess, subjects: Sequence[Subject], facts: Mapping[str, Any], folder: Path
) -> Running:
    """A peer that answers like the bare session. Raises PeerFailed."""
    peer = process.peer
    found = asked(server, subjects, peer.path, peer.form, process.port, folder, process.pids, process)
    first = subjects[0].name
    process.start(found.paths[first], found.bodies[first][1])
    server.start_s, server.version = process.start_s, peer.version()
    for subject in subjects:
        path, (_, body) = found.paths[subject.name], found.bodies[subject.name]
        try:
            content, headers = process.ask(path, body)
            got = FORMS[peer.form].read(content, headers, facts[subject.name]["outputs"])
        except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError) as failed:
            raise PeerFailed(f"{subject.name}: {type(failed).__name__}: {failed}; {process.last_words()}") from None
        for fault in faults(models.expected(subject), got):
            raise PeerFailed(f"{subject.name} is answered wrongly: {fault}")
    return found


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


def faults(expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name, value in expected.items():
        if name not in got:
            yield f"output {name!r} is missing; it has {sorted(got)}"
        elif got[name].shape != value.shape:
            yield f"output {name!r} is {got[name].shape}, not {value.shape}"
        else:
            least = AGREEMENT * float(np.abs(value).max())
            furthest = float(np.abs(got[name].astype(np.float64) - value).max())
            if not furthest <= least:
                yield f"output {name!r} is {furthest:.2g} off, more than {least:.2g}"


def check_forgeway(client: Client, subjects: Sequence[Subject]) -> None:
    """Its reference variant answers as the bare session does; what may differ is a variant within its gate."""
    for subject in subjects:
        got = client.predict(subject.name, subject.row, variant=REFERENCE)
        for fault in faults(models.expected(subject), dict(got)):
            raise RuntimeError(f"Forgeway's reference of {subject.name} is answered wrongly: {fault}")


def bare_specs(
    gateway: GatewayProcess, subjects: Sequence[Subject], results: Sequence[rounds.Result], folder: Path, seconds: float
) -> list[dict[str, Path]]:
    store = ModelStore.open(gateway.data)
    try:
        return [
            rounds.bare_specs(store, subject, result, folder, seconds)
            for subject, result in zip(subjects, results, strict=True)
        ]
    finally:
        store.close()


def gateway_pids(gateway: GatewayProcess) -> list[int]:
    return [gateway.pid, *gateway.pids()]

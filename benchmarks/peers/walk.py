"""The measuring walk: Forgeway compiled with defaults, every peer checked, then rounds in turns.

All servers stay up. Who burns CPU while nobody asks is stopped (SIGSTOP) except in its own turn, so that it disturbs
nobody. A round asks every server at every load, in an order that is turned around from round to round; between two
turns the server that was asked finishes what the load generator left behind.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import processes, rounds, wrk
from benchmarks.figures import Figures
from benchmarks.models import Subject
from benchmarks.peers import models, perf_analyzer
from benchmarks.peers.bodies import FORMS, Body
from benchmarks.peers.roster import V2, Peer
from benchmarks.peers.running import PeerFailed, PeerProcess
from benchmarks.peers.standing import Running, Server, asked, rest, settle, wake, weigh
from gateway.client import Client
from gateway.demo.process import GatewayProcess
from model_store.entities import REFERENCE
from model_store.store import ModelStore

FORGEWAY, BARE = "forgeway", "bare session"
AGREEMENT = 1e-3
"""Largest difference to the bare session, as a share of its largest output."""

ANALYZED_CONNECTIONS = 8

SLOW_S = 0.002
"""Models whose bare session takes longer than this are measured by whole waves."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """`bare` and `served`: the bare sessions of the reference and of the variant that answers one row, by subject."""

    servers: Sequence[Server]
    subjects: Sequence[rounds.Result]
    bare: Mapping[str, list[Figures]]
    served: Mapping[str, list[Figures]]
    rested: Sequence[str]
    ready_s: float
    analyzed: Mapping[str, list[Figures]] = field(default_factory=dict)

    @property
    def turns(self) -> int:
        return max(len(rounds) for rounds in self.bare.values())


def measure(
    subjects: Sequence[Subject],
    peers: Sequence[Peer],
    loads: Mapping[str, Sequence[int]],
    folder: Path,
    turns: int,
    seconds: int,
    budget_s: float,
    say: Say,
) -> Outcome:
    """At most `turns` rounds, at least one; no further one is begun that would end later than `budget_s` from now."""
    begun = time.monotonic()
    manifest = models.write(subjects, folder / "models")
    with ExitStack() as stack:
        gateway = stack.enter_context(GatewayProcess(folder / "data"))
        client = stack.enter_context(Client(gateway.url, timeout=120))
        results = [rounds.compile_subject(client, subject, folder, say) for subject in subjects]
        check_forgeway(client, subjects)
        specs = bare_specs(gateway, subjects, results, folder, seconds)
        running = line_up(stack, gateway, subjects, peers, manifest, folder, say)
        rested = weigh(running)
        say(f"stopped between their turns, for they burn CPU when idle: {', '.join(rested) or 'none'}")
        for each in running:
            rest(each, rested)
        bare, served = all_rounds(running, subjects, specs, loads, turns, seconds, begun + budget_s, rested, say)
        analyzed = second_opinion(running, subjects, rested, folder, turns, say)
        for each in running:
            wake(each, rested)
        return Outcome([each.server for each in running], results, bare, served, rested, gateway.ready_s, analyzed)


def line_up(
    stack: ExitStack,
    gateway: GatewayProcess,
    subjects: Sequence[Subject],
    peers: Sequence[Peer],
    manifest: Path,
    folder: Path,
    say: Say,
) -> list[Running]:
    """Forgeway and every peer, started and found to answer rightly; one that fails keeps its place and the reason."""
    facts = {each["name"]: each for each in json.loads(manifest.read_text())["models"]}
    ours = Server(FORGEWAY, "Forgeway", FORMS["v2-binary"].title, "defaults", start_s=gateway.ready_s)
    running = [asked(ours, subjects, V2, "v2-binary", gateway.port, folder, lambda: [gateway.pid, *gateway.pids()])]
    for peer in peers:
        process = stack.enter_context(PeerProcess(peer, manifest, folder))
        server = Server(peer.name, peer.title, FORMS[peer.form].title, peer.settings, peer.plain)
        running.append(asked(server, subjects, peer.path, peer.form, process.port, folder, process.pids, process))
        try:
            check(running[-1], process, subjects, facts)
            say(f"{peer.title}: started in {server.start_s:.1f} s, its answers are right")
        except PeerFailed as failed:
            server.failure = str(failed)
            process.stop()
            say(f"{peer.title}: left out: {failed}")
    return running


def all_rounds(
    running: Sequence[Running],
    subjects: Sequence[Subject],
    specs: Sequence[Mapping[str, Path]],
    loads: Mapping[str, Sequence[int]],
    turns: int,
    seconds: int,
    until: float,
    rested: Sequence[str],
    say: Say,
) -> tuple[dict[str, list[Figures]], dict[str, list[Figures]]]:
    """Fills the servers' cells. Returns the bare sessions by subject: of the reference, of the variant that serves."""
    bare: dict[str, list[Figures]] = {subject.name: [] for subject in subjects}
    served: dict[str, list[Figures]] = {subject.name: [] for subject in subjects}
    round_s = 0.0
    for number in range(turns):
        begun = time.monotonic()
        if number and begun + 1.1 * round_s > until:
            say(f"{number} rounds is what the time allows")
            break
        for subject, spec in zip(subjects, specs, strict=True):
            say(f"round {number + 1} of {turns}: {subject.name}")
            bare[subject.name].append(rounds.figures_of("benchmarks.bare", str(spec["bare"])))
            served[subject.name].append(rounds.figures_of("benchmarks.bare", str(spec["bare served"])))
            slow = bare[subject.name][0].p50_s > SLOW_S
            for connections in loads.get(subject.name, (1, 8)):
                for each in running if number % 2 == 0 else running[::-1]:
                    one_turn(each, subject.name, connections, seconds if slow else 1, slow, rested, say)
        round_s = time.monotonic() - begun
    return bare, served


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
        before, rows = processes.cpu_s(pids), each.rows(subject)
        figures = asking(each, subject, file, body, connections, seconds, slow)
        settle(each)
        after = each.rows(subject)
        answered = {name: count - rows.get(name, 0) for name, count in after.items() if count > rows.get(name, 0)}
        figures = replace(figures, variants=answered)
        server.cpu_s.setdefault((subject, connections), []).append(
            (processes.cpu_s(pids) - before) / max(1, figures.count)
        )
        server.cells.setdefault((subject, connections), []).append(figures)
    except (PeerFailed, RuntimeError) as failed:
        server.failure = str(failed).splitlines()[0]
        say(f"{server.title}: left out from here: {server.failure}")
    finally:
        rest(each, rested)


def second_opinion(
    running: Sequence[Running], subjects: Sequence[Subject], rested: Sequence[str], folder: Path, turns: int, say: Say
) -> dict[str, list[Figures]]:
    """perf_analyzer with tiny, where it is installed: Forgeway and those that it can ask, in turns."""
    found: dict[str, list[Figures]] = {}
    able = [each for each in running if not each.server.failure and (each.peer is None or each.peer.peer.analyzed)]
    if not perf_analyzer.BINARY.exists() or len(able) < 2 or all(subject.name != "tiny" for subject in subjects):
        return found
    say("perf_analyzer: tiny")
    try:
        for number in range(turns):
            for each in able if number % 2 == 0 else able[::-1]:
                wake(each, rested)
                figures = perf_analyzer.load(each.port, "tiny", ANALYZED_CONNECTIONS, 1.5, folder)
                found.setdefault(each.server.title, []).append(figures)
                rest(each, rested)
    except (RuntimeError, subprocess.TimeoutExpired) as failed:
        say(f"perf_analyzer is left out: {failed}")
        return {}
    return found


def asking(each: Running, subject: str, file: Path, body: Body, connections: int, seconds: int, slow: bool) -> Figures:
    """Where not one answer came, once more and four times as long."""
    path = each.paths[subject]
    try:
        return wrk.load(each.port, path, file, body.headers, connections, seconds, slow)
    except wrk.NoAnswers:
        return wrk.load(each.port, path, file, body.headers, connections, 4 * seconds, slow)


def check(each: Running, process: PeerProcess, subjects: Sequence[Subject], facts: Mapping[str, Any]) -> None:
    """Start a peer and hold its answers against the bare session's. Raises PeerFailed."""
    process.start([(each.paths[subject.name], each.bodies[subject.name][1]) for subject in subjects])
    each.server.start_s, each.server.version = process.start_s, process.peer.version()
    for subject in subjects:
        path, (_, body) = each.paths[subject.name], each.bodies[subject.name]
        try:
            content, headers = process.ask(path, body)
            got = FORMS[process.peer.form].read(content, headers, facts[subject.name]["outputs"])
        except (urllib.error.URLError, OSError, ValueError, KeyError, IndexError) as failed:
            raise PeerFailed(f"{subject.name}: {type(failed).__name__}: {failed}; {process.last_words()}") from None
        for fault in faults(models.expected(subject), got):
            raise PeerFailed(f"{subject.name} is answered wrongly: {fault}")


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

"""What was measured beside the peers: tables for people, one JSON document for programs, groups for the plot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.figures import Figures, Spread, ratios
from benchmarks.peers.bars import Bar, Group
from benchmarks.peers.roster import ABSENT
from benchmarks.peers.standing import Server
from benchmarks.peers.walk import ANALYZED_CONNECTIONS, BARE, FORGEWAY, Outcome
from benchmarks.table import answered_by

MIB = 1 << 20
PEER_TARGETS = {
    ("resnet50", 8, "rate"): (3.7, "resnet50 c=8, throughput"),
    ("resnet50", 1, "p50_s"): (0.5, "resnet50 c=1, p50"),
    ("minilm", 8, "rate"): (3.0, "minilm c=8, throughput"),
    ("minilm", 1, "p50_s"): (0.5, "minilm c=1, p50"),
    ("encoder", 8, "rate"): (3.0, "encoder (MiniLM's shape, random weights) c=8, throughput"),
    ("encoder", 1, "p50_s"): (0.5, "encoder (MiniLM's shape, random weights) c=1, p50"),
    ("tiny", 32, "rate"): (5.0, "tiny c=32, throughput"),
}
"""The rows of the target table that are ratios to peers. A rate must reach its figure, a p50 stay below it."""


def markdown(outcome: Outcome, facts: Mapping[str, str], plot: str) -> str:
    lines = ["# Beside other servers", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    lines += ["", f"![req/s by server]({plot})", ""]
    lines += [
        "The same ONNX files for every server, one row a request, keep-alive, one load generator, all servers up,",
        "asked in turn within each round; medians over the rounds, (least-greatest); ratios are taken within a round.",
        "Every peer's answers were held against the bare session's first (within 1e-3). Peers serve what they are",
        "given; Forgeway was given the same file with samples, and its defaults. CPU: of all processes of the server.",
    ]
    for result in outcome.subjects:
        lines += ["", *subject_tables(outcome, result.subject)]
    if outcome.analyzed:
        lines += ["", *analyzer_table(outcome)]
    lines += ["", *target_table(outcome), "", *server_table(outcome), "", *variant_table(outcome)]
    return "\n".join(lines) + "\n"


def subject_tables(outcome: Outcome, subject: str) -> Iterator[str]:
    result = next(result for result in outcome.subjects if result.subject == subject)
    yield f"## {subject}"
    yield ""
    bare, served = outcome.bare[subject], outcome.served[subject]
    yield f"{result.note}. {result.model_bytes / 1e6:.1f} MB. Bare session: {rates(bare)} rows/s; bare session of the"
    yield f"variant that answers one row ({result.served}): {rates(served)} rows/s."
    for connections in loads(outcome, subject):
        yield ""
        yield f"| c={connections} | body | req/s | x bare session | Forgeway is | p50 ms | p99 ms | CPU ms |"
        yield "|---|---|---|---|---|---|---|---|"
        ours = outcome.servers[0].cells.get((subject, connections), [])
        for server in outcome.servers:
            yield row(server, (subject, connections), bare, ours)
        if ours:
            yield ""
            yield f"Forgeway's rows were answered by: {answered_by(ours)}."


def analyzer_table(outcome: Outcome) -> Iterator[str]:
    yield f"## tiny by perf_analyzer, c={ANALYZED_CONNECTIONS}"
    yield ""
    yield "A second load generator, on the servers that speak V2 with model configurations and statistics; KServe and"
    yield "MLServer leave those out and it does not start on them. It costs more CPU than wrk and has the same cores."
    yield ""
    yield "| | req/s | Forgeway is | p50 ms | p99 ms |"
    yield "|---|---|---|---|---|"
    ours = next(iter(outcome.analyzed.values()))
    for title, measured in outcome.analyzed.items():
        times = [
            Spread.over([getattr(each, what) for each in measured]).text(".2f", 1e3) for what in ("p50_s", "p99_s")
        ]
        other = "" if measured is ours else f"{ratios(ours, measured).text()}x"
        yield f"| {title} | {rates(measured)} | {other} | {times[0]} | {times[1]} |"


def row(server: Server, cell: tuple[str, int], bare: Sequence[Figures], ours: Sequence[Figures]) -> str:
    measured = server.cells.get(cell, [])
    if not measured:
        why = "failed, see Servers" if server.failure else "not measured"
        return f"| {server.title} | {server.form} | {why} | | | | | |"
    rounds = len(measured)
    errors = sum(figures.errors for figures in measured)
    beside = "" if server.name == FORGEWAY else f"{ratios(ours[:rounds], measured).text()}x"
    cells = (
        server.title,
        server.form,
        rates(measured) + (f", {errors} errors" if errors else "") + (" (then it failed)" if server.failure else ""),
        ratios(measured, bare[:rounds]).text(".3f"),
        beside,
        Spread.over([figures.p50_s for figures in measured]).text(".2f", 1e3),
        Spread.over([figures.p99_s for figures in measured]).text(".2f", 1e3),
        Spread.over(server.cpu_s[cell]).text(".3f", 1e3),
    )
    return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Target:
    """A ratio of Forgeway's to the best peer's; `plain`: the same ratio to the plain service, as text."""

    title: str
    sign: str
    bound: float
    found: float | None
    text: str
    best: str
    plain: str = ""

    @property
    def verdict(self) -> str:
        if self.found is None:
            return "not measured"
        return "met" if (self.found >= self.bound) == (self.sign == ">=") or self.found == self.bound else "**missed**"


def targets(outcome: Outcome) -> Iterator[Target]:
    ours = outcome.servers[0]
    peers = [each for each in outcome.servers[1:] if not each.plain]
    plain = [each for each in outcome.servers[1:] if each.plain]
    for (subject, connections, what), (bound, title) in PEER_TARGETS.items():
        cell, sign = (subject, connections), ">=" if what == "rate" else "<="
        best, simple = best_of(peers, ours, cell, what), best_of(plain, ours, cell, what)
        if best is not None:
            found = beside(outcome, best, cell, what)
            other = "" if simple is None else beside(outcome, simple, cell, what).text()
            yield Target(title, sign, bound, found.median, found.text(), best.title, other)
    for name, why in ABSENT.items():
        yield Target(f"tiny c=32, throughput, beside {name}", ">=", 1.5, None, why, name)


def target_table(outcome: Outcome) -> Iterator[str]:
    yield "## Targets that name peers"
    yield ""
    yield "| Forgeway / best peer | target | is | best peer | | beside the plain service |"
    yield "|---|---|---|---|---|---|"
    for each in targets(outcome):
        sign = {"<=": "≤", ">=": "≥"}[each.sign]
        yield f"| {each.title} | {sign} {each.bound} | {each.text} | {each.best} | {each.verdict} | {each.plain} |"


def beside(outcome: Outcome, server: Server, cell: tuple[str, int], what: str) -> Spread:
    return ratios(outcome.servers[0].cells[cell], server.cells[cell], what)


def best_of(servers: Sequence[Server], ours: Server, cell: tuple[str, int], what: str) -> Server | None:
    """Of those that were measured in every round: greatest median rate, or least median p50."""
    rounds = len(ours.cells.get(cell, []))
    measured = [each for each in servers if rounds and len(each.cells.get(cell, [])) == rounds]
    if not measured:
        return None
    sign = 1 if what == "rate" else -1
    return max(measured, key=lambda each: sign * Spread.over([getattr(f, what) for f in each.cells[cell]]).median)


def server_table(outcome: Outcome) -> Iterator[str]:
    yield "## Servers"
    yield ""
    yield "Start: from exec until every model answered (Forgeway: until ready). Idle: all models loaded,"
    yield "all processes of the server; Forgeway's compile worker and its variants are in it."
    yield ""
    yield "| server | version | settings | start s | idle PSS MiB | idle CPU, % of a core | |"
    yield "|---|---|---|---|---|---|---|"
    for server in outcome.servers:
        note = server.failure or ("stopped between its turns" if server.name in outcome.rested else "")
        yield (
            f"| {server.title} | {server.version} | {server.settings} | {server.start_s:.1f} "
            f"| {server.idle_pss_bytes / MIB:.0f} | {server.idle_cores * 100:.1f} | {note} |"
        )
    for name, why in ABSENT.items():
        yield f"| {name} | | | | | | {why} |"


def variant_table(outcome: Outcome) -> Iterator[str]:
    yield "## What Forgeway made of the models"
    yield ""
    yield "| model | variant | verdict | reason |"
    yield "|---|---|---|---|"
    for result in outcome.subjects:
        for variant in result.variants:
            yield f"| {result.subject} | {variant['id']} | {variant['verdict']} | {variant['reason']} |"


def groups(outcome: Outcome) -> list[Group]:
    """One group a subject and load: answers a second of the servers that were measured."""
    found = []
    for result in outcome.subjects:
        for connections in loads(outcome, result.subject):
            cell = (result.subject, connections)
            bars = [
                Bar(
                    server.title, Spread.over([figures.rate for figures in server.cells[cell]]), server.name == FORGEWAY
                )
                for server in outcome.servers
                if server.cells.get(cell)
            ]
            if result.subject != "tiny":
                bars.append(Bar(BARE, Spread.over([figures.rate for figures in outcome.bare[result.subject]])))
            found.append(Group(f"{result.subject}, {connections} connections", "req/s", bars))
    return found


def loads(outcome: Outcome, subject: str) -> list[int]:
    return sorted({connections for server in outcome.servers for name, connections in server.cells if name == subject})


def rates(measured: Sequence[Figures]) -> str:
    found = Spread.over([figures.rate for figures in measured])
    return found.text(".0f" if found.median >= 100 else ".1f")


def document(outcome: Outcome, facts: Mapping[str, str]) -> str:
    servers = []
    for server in outcome.servers:
        plain = {key: value for key, value in vars(server).items() if key not in ("cells", "cpu_s")}
        plain["cells"] = [
            {"subject": subject, "connections": connections, "rounds": [figures.as_dict() for figures in measured],
             "cpu_s": server.cpu_s[subject, connections]}
            for (subject, connections), measured in server.cells.items()
        ]  # fmt: skip
        servers.append(plain)
    content = {
        "machine": dict(facts),
        "servers": servers,
        "targets": [asdict(each) for each in targets(outcome)],
        "absent": ABSENT,
        "rested": list(outcome.rested),
        "bare": {name: [each.as_dict() for each in figures] for name, figures in outcome.bare.items()},
        "bare served": {name: [each.as_dict() for each in figures] for name, figures in outcome.served.items()},
        "perf_analyzer": {name: [each.as_dict() for each in figures] for name, figures in outcome.analyzed.items()},
        "subjects": [asdict(result) for result in outcome.subjects],
    }
    return json.dumps(content, indent=1) + "\n"

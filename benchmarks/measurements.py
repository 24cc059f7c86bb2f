"""The measurements behind the target table: each yields rows (target, sign, bound, found, text, how).

They share one gateway with its defaults and nothing tuned; what a measurement needs is registered when it is first
needed, and everything is compiled before it is measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks import processes, rounds, steady, wrk
from benchmarks.figures import Figures, Spread, ratios
from benchmarks.models import SUBJECTS, Subject
from benchmarks.peers.bodies import FORMS
from benchmarks.rounds import Result
from gateway.client import Client
from gateway.demo.asking import Asking, first_answer, near
from gateway.demo.process import WORKER, GatewayProcess
from model_store.store import ModelStore
from tests import zoo

Rows = Iterator[tuple[str, str, float, float | None, str, str]]
Say = Callable[[str], None]
MIB = 1 << 20
JSON_REQUESTS = 40
PAUSE_S = 0.001


class Bench:
    """One gateway for all measurements, and its compiled subjects by name."""

    def __init__(self, folder: Path, turns: int, seconds: int, say: Say) -> None:
        self.folder, self.turns, self.seconds, self.say = folder, turns, seconds, say
        self._stack = ExitStack()
        self._compiled: dict[str, tuple[Subject, Result]] = {}
        self._gateway: GatewayProcess | None = None

    @property
    def gateway(self) -> GatewayProcess:
        if self._gateway is None:
            self._gateway = self._stack.enter_context(GatewayProcess(self.folder / "data"))
            self.client = self._stack.enter_context(Client(self._gateway.url, timeout=120))
        return self._gateway

    def compiled(self, name: str) -> tuple[Subject, Result]:
        if name not in self._compiled:
            subject = SUBJECTS[name]()
            self._compiled[name] = (
                subject,
                rounds.compile_subject(self.ready_client(), subject, self.folder, self.say),
            )
        return self._compiled[name]

    def ready_client(self) -> Client:
        _ = self.gateway
        return self.client

    def body(self, subject: Subject) -> tuple[Path, Mapping[str, str]]:
        """A file with a V2 binary request of one row, and its headers."""
        body, file = FORMS["v2-binary"].write(subject.row), self.folder / f"{subject.name}.body"
        file.write_bytes(body.content)
        return file, body.headers

    def load(self, port: int, subject: Subject, connections: int, slow: bool = False) -> Figures:
        file, headers = self.body(subject)
        path = f"/v2/models/{subject.name}/infer"
        found = wrk.load(port, path, file, headers, connections, self.seconds, slow)
        if found.errors:
            raise RuntimeError(f"{subject.name} c={connections}: {found.errors} errors")
        return found

    def close(self) -> None:
        self._stack.close()


def start(bench: Bench) -> Rows:
    """An empty gateway: how soon it is ready, what it holds when idle."""
    ready, pss = [], []
    for number in range(bench.turns):
        with GatewayProcess(bench.folder / f"empty{number}") as gateway:
            time.sleep(1)
            ready.append(gateway.ready_s)
            worker = set(gateway.pids(WORKER))
            pss.append(
                sum(processes.pss_bytes(pid) for pid in (gateway.pid, *gateway.pids()) if pid not in worker) / MIB
            )
    text = Spread.over(pss)
    yield (
        "idle memory of gateway and runners, MiB",
        "<=",
        300,
        text.median,
        text.text(".0f"),
        "PSS, no model, no worker",
    )
    text = Spread.over(ready)
    yield "ready after, s", "<=", 2, text.median, text.text(), "from exec to /v2/health/ready"


def first(bench: Bench) -> Rows:
    """Time from the beginning of an upload of 100 MB to the first answer."""
    took = []
    for number in range(bench.turns):
        model = zoo.big(100, seed=number)
        file = bench.folder / "big.onnx"
        file.write_bytes(model.SerializeToString())
        row = {name: value[:1] for name, value in zoo.random_inputs(model, 1, seed=1).items()}
        with GatewayProcess(bench.folder / f"big{number}") as gateway, Client(gateway.url, timeout=120) as client:
            started = time.monotonic()
            client.register("big", file)
            first_answer(gateway.url, "big", row)
            took.append(time.monotonic() - started)
    text = Spread.over(took)
    yield "first answer after register, 100 MB, s", "<=", 3, text.median, text.text(), "a chain of Gemms"


def swaps(bench: Bench) -> Rows:
    """Asked without pause while every variant of a model is built, published and swapped in."""
    subject, client = SUBJECTS["digits"](), bench.ready_client()
    inputs = subject.samples["image"][:32]
    session = zoo_session(subject.model)
    expected = [
        dict(zip(["logits"], session({"image": inputs[place : place + 1]}), strict=True)) for place in range(32)
    ]
    model, samples = bench.folder / "swaps.onnx", bench.folder / "swaps.npz"
    model.write_bytes(subject.model)
    np.savez(samples, **subject.samples)
    version = client.register("swaps", model, samples=samples)["version"]
    first_answer(client.url, "swaps", subject.row)
    questions = [{"image": inputs[place : place + 1]} for place in range(32)]
    with Asking(client.url, "swaps", questions, near(expected), threads=2, pause_s=0.002) as account:
        client.wait("swaps", version)
        time.sleep(2)
    bad = len(account.failures) + len(account.wrong)
    variants = ", ".join(f"{name} {count}" for name, count in account.answers.most_common())
    how = f"{account.asked} requests while digits was compiled, answered by {variants}"
    for example in (*account.failures[:1], *account.wrong[:1]):
        how += f"; e.g. {example}"
    yield "failed or wrong answers at swaps", "<=", 0, bad, str(bad), how


def echo(bench: Bench) -> Rows:
    """The tiny model beside a raw ASGI application under uvicorn that reads the same request."""
    subject, _ = bench.compiled("tiny")
    ours: dict[int, list[Figures]] = {1: [], 32: []}
    floor: dict[int, list[Figures]] = {1: [], 32: []}
    with rounds.echo_server() as port:
        for _ in range(bench.turns):
            for connections in (1, 32):
                floor[connections].append(bench.load(port, subject, connections))
                ours[connections].append(bench.load(bench.gateway.port, subject, connections))
    found = ratios(ours[32], floor[32])
    rates = [Spread.over([each.rate for each in which[32]]).text(".0f") for which in (ours, floor)]
    yield "tiny c=32: req/s beside a raw ASGI echo", ">=", 0.5, found.median, found.text(), " of ".join(rates)
    found = ratios(ours[1], floor[1], "p50_s")
    times = [Spread.over([each.p50_s for each in which[1]]).text(".3f", 1e3) for which in (ours, floor)]
    yield "tiny c=1: p50 beside a raw ASGI echo's", "<=", 2, found.median, found.text(), f"{' of '.join(times)} ms"


def overhead(bench: Bench) -> Rows:
    """p50 of resnet50 through HTTP over p50 of the same variant's bare session.

    Told beside it, and no part of the ratio: what that session takes after a pause as long as a request is under way
    around it, and what an echo takes that receives the same body and does nothing.
    """
    subject, result = bench.compiled("resnet50")
    store = ModelStore.open(bench.gateway.data)
    try:
        spec = rounds.bare_specs(store, subject, result, bench.folder, bench.seconds)["bare served"]
    finally:
        store.close()
    paused = spec.with_suffix(".paused.json")
    paused.write_text(json.dumps(json.loads(spec.read_text()) | {"pause_s": PAUSE_S}))
    ours, bare, rested, floor = [], [], [], []
    with rounds.echo_server() as port:
        for _ in range(bench.turns + 1):
            bare.append(rounds.figures_of("benchmarks.bare", str(spec)))
            ours.append(bench.load(bench.gateway.port, subject, 1, slow=True))
            rested.append(rounds.figures_of("benchmarks.bare", str(paused)))
            floor.append(bench.load(port, subject, 1))
    found = ratios(ours, bare, "p50_s")
    times = [Spread.over([each.p50_s for each in which]).text(".2f", 1e3) for which in (ours, bare, rested, floor)]
    yield (
        "resnet50 c=1: p50 over the same variant's bare session", "<=", 1.03, found.median, found.text(".3f"),
        f"{' of '.join(times[:2])} ms, {result.served}; the bare session after a pause of {PAUSE_S * 1e3:g} ms "
        f"{times[2]} ms; an echo of the same body {times[3]} ms",
    )  # fmt: skip


def image(bench: Bench) -> Rows:
    """CPU time of the gateway's own processes for one image as JSON numbers."""
    subject, _ = bench.compiled("resnet50")
    (name, value), client = next(iter(subject.row.items())), bench.ready_client()
    tensor = {"name": name, "shape": list(value.shape), "datatype": "FP32", "data": value.ravel().tolist()}
    file = bench.folder / "image.json"
    file.write_text(json.dumps({"inputs": [tensor]}))
    rounds_cpu = []
    from urllib.request import Request, urlopen

    request = Request(
        f"{client.url}/v2/models/{subject.name}/infer", file.read_bytes(), {"content-type": "application/json"}
    )
    for turn in range(bench.turns + 1):
        own = gateway_processes(bench.gateway)
        before = processes.cpu_s(own)
        for _ in range(JSON_REQUESTS):
            with urlopen(request, timeout=60) as answer:
                answer.read()
        if turn:  # the first warms up
            rounds_cpu.append((processes.cpu_s(own) - before) / JSON_REQUESTS * 1e3)
    text = Spread.over(rounds_cpu)
    size = file.stat().st_size / 1e6
    yield (
        "JSON image: ms of gateway CPU",
        "<=",
        10,
        text.median,
        text.text(".1f"),
        f"{size:.1f} MB, {JSON_REQUESTS} a round",
    )


def steadiness(bench: Bench) -> Rows:
    """p99 over p50 at 70 % of the capacity that the same client measured just before."""
    for name in ("tiny", "resnet50"):
        subject, _ = bench.compiled(name)
        asked = steady.questions(bench.ready_client(), bench.gateway.port, [subject], bench.folder)
        found = []
        for _ in range(bench.turns):
            capacity = steady.capacity(bench.gateway.port, asked, 2.0, bench.folder)
            paced = steady.run(bench.gateway.port, asked, 0.7 * capacity, 4.0, bench.folder)
            if paced.failed:
                raise RuntimeError(f"{paced.failed} requests failed: {dict(paced.faults)}")
            found.append((paced.ratio(name), paced.totals[name]["p50_s"], capacity))
        ratio = Spread.over([each[0] for each in found])
        p50, capacity = (Spread.over([each[place] for each in found]) for place in (1, 2))
        how = f"p50 {p50.text('.2f', 1e3)} ms at 70 % of {capacity.text('.0f')} req/s, even arrivals"
        yield f"{name} at 70 % of capacity: p99 / p50", "<=", 3, ratio.median, ratio.text(), how
        full = Spread.over([each[1] * each[2] / steady.CONNECTIONS for each in found])
        how = "else it did not keep up, and the ratio above means nothing"
        yield f"{name} at 70 % of capacity: p50 over that at capacity", "<=", 1, full.median, full.text(), how


def compiling(bench: Bench) -> Rows:
    """p99 of tiny while another model is compiled, over p99 beside it in time with nothing compiled."""
    from benchmarks import while_compiling

    subject, _ = bench.compiled("tiny")
    client = bench.ready_client()
    still, busy = while_compiling.measure(bench.gateway, client, subject, 8, bench.turns, bench.seconds, bench.folder)
    found = ratios(busy, still, "p99_s")
    times = [Spread.over([each.p99_s for each in which]).text(".2f", 1e3) for which in (busy, still)]
    how = f"c=8, {' of '.join(times)} ms, more in benchmarks.while_compiling"
    yield "tiny: p99 while a compile runs over p99 idle", "<=", 1.5, found.median, found.text(), how


def gateway_processes(gateway: GatewayProcess) -> list[int]:
    """All that take requests: without the runners and the compile worker."""
    others = {*gateway.pids("gateway.running.runner_main"), *gateway.pids(WORKER)}
    return [pid for pid in (gateway.pid, *gateway.pids()) if pid not in others]


def zoo_session(model: bytes) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    return lambda feeds: session.run(None, dict(feeds))


ALL: Mapping[str, Callable[[Bench], Rows]] = {
    "start": start,
    "first": first,
    "echo": echo,
    "swaps": swaps,
    "overhead": overhead,
    "image": image,
    "steadiness": steadiness,
    "compiling": compiling,
}
"""In this order: small models first, so that a failure shows early."""

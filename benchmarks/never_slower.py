"""Is any serving variant slower than the reference in a bucket where it answers? `python -m benchmarks.never_slower`

Each model of benchmarks/varied.py is compiled as it would be through the API. Then every pair of serving variant and
bucket that routing may use is timed *again*, in turns with the reference, in fresh processes and on other rounds than
its evidence. A pair fails when the fresh interval lies below one; where only its middle does, that is told.

Compiling may share the machine, timing may not, and both take long: with `--kept FOLDER` they are phases of their own
(`compile`, `time`) that go on where they were ended, by `--for SECONDS` or by a signal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import onnx

from benchmarks.machine import facts, slug
from benchmarks.varied import MODELS, samples_of
from compilers import hardware, steps, walk
from compilers.timing.plan import Setting
from compilers.worker import run_worker
from model_store.entities import REFERENCE, Timing, Variant, Verdict
from model_store.errors import NotFound
from model_store.policy import Policy
from model_store.store import ModelStore
from tests import zoo

BUDGET_SECONDS, SECONDS = 240.0, 3.0
TARGETS = ("ort-cpu", "openvino-cpu")


@dataclass(frozen=True)
class Pair:
    """A serving variant in a bucket, as its evidence has it and as it was measured again."""

    variant: str
    rows: int
    evidence: Timing
    again: Timing

    @property
    def slower(self) -> bool:
        return self.again.speedup_upper < 1.0

    @property
    def words(self) -> str:
        mark = "  SLOWER" if self.slower else "  (near one)" if self.again.speedup < 1 else ""
        interval = f"({self.again.speedup_lower:.2f} to {self.again.speedup_upper:.2f})"
        speeds = f"evidence {self.evidence.speedup:.2f}x, again {self.again.speedup:.2f}x {interval}"
        return f"{self.variant} at {self.rows}: {speeds}{mark}"


@dataclass
class Kept:
    """What was found out so far, in a file that is replaced whole. `timed`: model -> variant -> its pairs."""

    path: Path
    machine: dict[str, str] = field(default_factory=facts)
    timed: dict[str, dict[str, list[Pair]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Kept:
        if not path.exists():
            return cls(path)
        kept = msgspec.json.decode(path.read_bytes())
        timed = msgspec.convert(kept["timed"], dict[str, dict[str, list[Pair]]])
        return cls(path, kept["machine"], timed, kept["failed"])

    def write(self) -> None:
        fresh = self.path.with_suffix(".new")
        told: dict[str, Any] = {"machine": self.machine, "failed": self.failed, "timed": self.timed}
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(told)) + b"\n")
        fresh.replace(self.path)

    @property
    def pairs(self) -> list[Pair]:
        return [pair for variants in self.timed.values() for pairs in variants.values() for pair in pairs]

    @property
    def slower(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.slower]

    @property
    def summary(self) -> str:
        near = sum(pair.again.speedup < 1 for pair in self.pairs) - len(self.slower)
        counted = f"{len(self.timed)} models, {len(self.pairs)} pairs of variant and bucket timed again"
        return f"{counted}: {len(self.slower)} slower, {near} near one"


def register(store: ModelStore, name: str, budget_seconds: float) -> None:
    """As through the API, unless it was before."""
    if _known(store, name):
        return
    model = MODELS[name]()
    with tempfile.TemporaryDirectory() as folder:
        upload, packed = Path(folder, "model.onnx"), Path(folder, "samples.npz")
        onnx.save(model, upload)
        zoo.npz(packed, **samples_of(name, model))
        policy = {"budget_seconds": budget_seconds}
        store.register(name, upload, samples=packed, policy=policy, targets=TARGETS)


def ended(store: ModelStore, name: str) -> bool:
    """Whether the model was registered and every job of it is over."""
    return _known(store, name) and all(job.state.ended for job in store.catalog.jobs(name))


def _known(store: ModelStore, name: str) -> bool:
    try:
        return bool(store.catalog.model(name))
    except NotFound:
        return False


@contextmanager
def working(store: ModelStore) -> Iterator[None]:
    """A compile worker beside this thread, its children at the priority of this process."""
    stop = threading.Event()
    worker = threading.Thread(target=run_worker, args=(store, stop), kwargs={"nice": 0})
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


def compile_one(store: ModelStore, kept: Kept, name: str, budget_seconds: float, until: float) -> None:
    """Wait until the worker has done the model, or time is over."""
    began = time.monotonic()
    if ended(store, name) or began >= until:
        return
    register(store, name, budget_seconds)
    while not ended(store, name) and time.monotonic() < until:
        time.sleep(0.2)
    errors = "; ".join(f"{job.target}: {job.error}" for job in store.catalog.jobs(name) if job.error)
    if errors:
        kept.failed[name] = errors
        kept.write()
    state = "compiled" if ended(store, name) else "not done yet"
    print(f"{name:20} {state} after {time.monotonic() - began:.0f} s {errors}", flush=True)


def time_one(store: ModelStore, kept: Kept, name: str, seconds: float, until: float) -> None:
    """Every serving variant that was not timed again before, while there is time."""
    if not ended(store, name):
        return
    timed = kept.timed.setdefault(name, {})
    for variant in serving(store, name):
        if variant.id not in timed and time.monotonic() < until:
            timed[variant.id] = list(timed_again(store, name, variant, seconds))
            kept.write()
            for pair in timed[variant.id]:
                print(f"{name:20} {pair.words}", flush=True)
    if not timed:
        print(f"{name:20} the reference alone", flush=True)


def serving(store: ModelStore, name: str) -> list[Variant]:
    """What may answer besides the reference."""
    found = store.catalog.variants(name, "1")
    return [each for each in found if each.verdict is Verdict.SERVING and each.id != REFERENCE and each.evidence]


def timed_again(store: ModelStore, name: str, variant: Variant, seconds: float) -> Iterator[Pair]:
    """The variant in every bucket where it is proven, timed once more, in the setting it serves in."""
    version = store.catalog.version(name, "1")
    reference = next(each for each in store.catalog.variants(name, "1") if each.id == REFERENCE)
    probed = store.catalog.step_result(walk.probe(version).key())
    assert probed is not None and reference.plan is not None
    assert variant.evidence is not None and variant.artifact is not None and variant.plan is not None
    proven = {timing.rows: timing for timing in variant.evidence.timings if timing.speedup_lower > 1.0}
    subject = walk.Subject(
        version=version,
        policy=Policy.model_validate(version.policy),
        target=variant.target,
        max_rows=reference.plan.max_rows,
        guess=probed["result"]["guess"],
        threads=hardware.usable_cores(),
        plan=reference.plan,
    )
    setting = Setting(variant.plan.threads, variant.plan.instances)
    step = walk.measure(subject, variant.artifact, rows=sorted(proven), seconds=seconds, setting=setting)
    paths = {key: store.blobs.path(digest) for key, digest in step.inputs.items()}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        request = msgspec.json.decode(msgspec.json.encode(step.params))
        answer = msgspec.json.decode(msgspec.json.encode(steps.measure(request, paths).result))
    for timing in msgspec.convert(answer["timings"], tuple[Timing, ...]):
        yield Pair(variant.id, timing.rows, proven[timing.rows], timing)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.never_slower", description=__doc__)
    parser.add_argument("phase", nargs="?", choices=("compile", "time", "both"), default="both")
    parser.add_argument("--models", help="names, with commas; all by default", default=",".join(MODELS))
    parser.add_argument("--budget", type=float, default=BUDGET_SECONDS, help="seconds a target may compile")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing again, for each variant")
    parser.add_argument(
        "--for", type=float, default=float("inf"), dest="most", help="seconds; then end, to go on later"
    )
    parser.add_argument("--kept", type=Path, help="a folder to go on in; without it everything is forgotten but --out")
    parser.add_argument("--out", type=Path, help="write the table and the figures into this folder, too")
    options = parser.parse_args()
    until, names = time.monotonic() + options.most, options.models.split(",")
    for name in names:
        if name not in MODELS:
            parser.error(f"no model {name!r}; there are {', '.join(MODELS)}")
    with tempfile.TemporaryDirectory() as forgotten:
        folder = options.kept or Path(forgotten)
        folder.mkdir(parents=True, exist_ok=True)
        kept = Kept.read(folder / "never-slower.json")
        store = ModelStore.open(folder / "data")
        try:
            with working(store) if options.phase != "time" else nullcontext():
                for name in names:
                    if options.phase != "time":
                        compile_one(store, kept, name, options.budget, until)
                    if options.phase != "compile":
                        time_one(store, kept, name, options.seconds, until)
            missing = [name for name in names if not ended(store, name)]
            missing += [
                f"{name} {v.id}" for name in kept.timed for v in serving(store, name) if v.id not in kept.timed[name]
            ]
        finally:
            store.close()
        kept.write()
        if options.out:
            stem = options.out / f"{kept.machine['date']}-never-slower-{slug(kept.machine)}"
            stem.with_name(f"{stem.name}.json").write_bytes(kept.path.read_bytes())
            stem.with_name(f"{stem.name}.md").write_text(markdown(kept))
    print(f"\n{kept.summary}" + (f"; still to be done: {', '.join(missing)}" if missing else ""))
    sys.exit(1 if kept.slower else 0)


def markdown(kept: Kept) -> str:
    lines = ["# Never slower", "", kept.summary + ".", ""]
    lines += [f"- {key}: {value}" for key, value in kept.machine.items()]
    lines += [
        "",
        "Of every model the pair that gained least when it was timed again; in brackets the 95 % interval.",
        "",
    ]
    lines += ["| model | pairs | least gain again | where | its evidence |", "|---|---:|---|---|---:|"]
    for name, variants in kept.timed.items():
        pairs = [pair for found in variants.values() for pair in found]
        if not pairs:
            lines.append(f"| {name} | 0 | - | the reference alone answers | - |")
            continue
        least = min(pairs, key=lambda pair: pair.again.speedup)
        again = f"{least.again.speedup:.2f}x [{least.again.speedup_lower:.2f}, {least.again.speedup_upper:.2f}]"
        where = f"{least.variant} at {least.rows} row{'s' * (least.rows != 1)}{', SLOWER' if least.slower else ''}"
        lines.append(f"| {name} | {len(pairs)} | {again} | {where} | {least.evidence.speedup:.2f}x |")
    return "\n".join((*lines, ""))


if __name__ == "__main__":
    main()

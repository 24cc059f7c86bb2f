"""One step of compiling, in a confined child: resumed when done before, cancelled when asked, repeatable by hand.

A step is keyed by sha256 of everything that can change its answer: its name and parameters, the digests of its inputs,
the versions of the tools, the sources of the step, and, where kernels decide, the hardware. What was answered under a
key is never computed again: a crash resumes behind the last finished step, a twin model reuses them all. Only answers
are kept; a child that crashed or ran out of time may fare better the next time.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import math
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from compilers import hardware
from compilers.patience import patiently
from model_store.entities import Digest, Job
from model_store.sandbox import GIB, Limits, Outcome, run_confined
from model_store.store import ModelStore

ANSWER = "answer.json"

TOOLS = (
    "forgeway", "numpy", "onnx", "onnx-ir", "onnxslim", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino",
    "nncf",
)  # fmt: skip

SOURCES: dict[str, tuple[str, ...]] = {
    "probe": ("steps", "probing", "synthetic", "samples", "compare", "targets/*"),
    "transform": ("steps", "samples"),  # the passes' own sources are in the recipe's digest
    "build": ("steps", "targets/*"),
    "outputs": ("steps", "feed", "samples", "synthetic", "recording", "targets/*"),
    "agree": ("steps", "feed", "samples", "synthetic", "recording", "compare", "intervals", "targets/*"),
    "measure": ("steps", "feed", "samples", "synthetic", "measure", "stopwatch", "intervals", "targets/*"),
}
"""Step -> the modules that decide its answer: editing one makes the step run again."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do (a name in compilers.steps), with what parameters, on which blobs."""

    name: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Digest]

    def key(self) -> str:
        facts = {
            "step": self.name,
            "params": self.params,
            "inputs": self.inputs,
            "tools": tool_versions(),
            "sources": _sources(self.name),
            "hardware": {} if self.name == "transform" else hardware.fingerprint(),
        }
        return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()


@dataclass(frozen=True, slots=True)
class Done:
    """A step's answer. `files`: name -> blob."""

    result: Mapping[str, Any]
    files: Mapping[str, Digest] = field(default_factory=dict)
    refused: str | None = None
    peak_memory_bytes: int = 0


class StepFailed(Exception):
    """The step gave no result; the text is the reason a variant is rejected with."""


class Stopped(Exception):
    """Not to be worked on any more: the job was cancelled or lost, or the worker is stopping."""


class Isolation:
    """Runs the steps of one job. `stopped` is asked all the time; no step outlives `deadline` (monotonic seconds)."""

    def __init__(self, store: ModelStore, job: Job, workdir: Path, *, nice: int, stopped: Callable[[], bool]) -> None:
        self.store = store
        self.job = job
        self.deadline = math.inf
        self.trail: list[tuple[Step, Mapping[str, Digest]]] = []
        self._workdir = workdir
        self._nice = nice
        self._stopped = stopped

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() >= self.deadline

    def begin(self) -> None:
        """Start a new trail: what `reproduce_script` tells is what ran since."""
        self.trail = []

    def run(self, step: Step, subject: str) -> Done:
        """The step's answer, from an earlier run where there is one. Raises StepFailed, Stopped, LeaseLost."""
        if self._stopped():
            raise Stopped
        key = step.key()
        done = self._recall(key)
        if done is not None:
            self._tell(step, "done", f"{subject}: {step.name}, as before", {"subject": subject, "reused": True})
        else:
            self._tell(step, "started", f"{subject}: {step.name}", {"subject": subject})
            started = time.monotonic()
            done = self._perform(step, key, subject)
            seconds = round(time.monotonic() - started, 3)
            told = {"subject": subject, "seconds": seconds, "reused": False}
            self._tell(step, "done", f"{subject}: {step.name} took {seconds:.1f} s", told)
        self.trail.append((step, done.files))
        if done.refused is not None:
            raise StepFailed(done.refused)
        return done

    def tell(self, step: str, status: str, text: str, data: Mapping[str, Any]) -> None:
        patiently(lambda: self.store.catalog.append_event(self.job, step, status, text, data))

    def _tell(self, step: Step, status: str, text: str, data: Mapping[str, Any]) -> None:
        self.tell(step.name, status, text, data)

    def _recall(self, key: str) -> Done | None:
        kept = patiently(lambda: self.store.catalog.step_result(key))
        if kept is None:
            return None
        done = msgspec.convert(kept, Done)
        return done if all(self.store.blobs.exists(digest) for digest in done.files.values()) else None

    def _perform(self, step: Step, key: str, subject: str) -> Done:
        with tempfile.TemporaryDirectory(prefix=f"{step.name}-", dir=self._workdir) as folder:
            workdir = Path(folder)
            inputs = {name: self.store.blobs.path(digest) for name, digest in step.inputs.items()}
            (workdir / "request.json").write_bytes(msgspec.json.encode(step.params))
            limits = Limits(
                seconds=min(86_400.0, max(0.1, self.deadline - time.monotonic())),
                nice=self._nice,
                writable=(str(workdir),),
                readable=(str(workdir), str(self.store.blobs.root), str(Path(__file__).resolve().parent)),
            )
            outcome = run_confined(
                "compilers.steps",
                [step.name, "request.json", *(f"{name}={path}" for name, path in inputs.items())],
                limits=limits,
                workdir=workdir,
                cancelled=self._stopped,
            )
            if outcome.cause == "cancelled":
                raise Stopped
            if not outcome.ok:
                reason = _why(step, outcome, limits)
                self.trail.append((step, {}))
                told = {"subject": subject, "cause": outcome.cause, "stderr": outcome.stderr[-2000:]}
                self._tell(step, "failed", f"{subject}: {reason}", told)
                raise StepFailed(reason)
            done = self._collect(step, workdir, inputs)
        kept = msgspec.to_builtins(done)
        patiently(lambda: self.store.catalog.record_step(key, step.name, kept, tuple(done.files.values())))
        return done

    def _collect(self, step: Step, workdir: Path, inputs: Mapping[str, Path]) -> Done:
        """Take in what the child left. It is believed in its figures, never in its paths."""
        answer = msgspec.json.decode((workdir / ANSWER).read_bytes(), type=_Answer)
        known = {str(path): step.inputs[name] for name, path in inputs.items()}
        files: dict[str, Digest] = {}
        for name, text in answer.files.items():
            path = workdir / text
            if str(path) in known:
                files[name] = known[str(path)]
            elif path.is_symlink() or not path.is_file() or path.resolve().parent != workdir.resolve():
                raise StepFailed(f"{step.name} named a file that is not its own")
            else:
                files[name] = self.store.blobs.adopt(path)[0]
        return Done(answer.result, files, answer.refused, answer.peak_memory_bytes)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What compilers.steps writes: its own `Answer`, read without importing what the steps import."""

    result: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    refused: str | None = None
    peak_memory_bytes: int = 0


def _why(step: Step, outcome: Outcome, limits: Limits) -> str:
    match outcome.cause:
        case "timeout":
            return f"the time budget ran out during {step.name}"
        case "memory":
            return f"{step.name} ran out of memory ({limits.memory_bytes / GIB:.0f} GiB allowed)"
        case "error":
            return f"{step.name} failed: {outcome.last_words()}"
        case signal:
            return f"{step.name} crashed with {signal}"


@functools.cache
def tool_versions() -> dict[str, str]:
    """Installed versions of what builds, changes and runs models; nothing is imported to find out."""
    versions = {}
    for name in TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def _sources(step: str) -> str:
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for pattern in SOURCES[step]:
        for source in sorted(folder.glob(f"{pattern}.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def reproduce_script(title: str, trail: Sequence[tuple[Step, Mapping[str, Digest]]]) -> bytes:
    """A shell script that repeats the steps by hand, each on what the one before it made, confined as it was."""
    limits = msgspec.json.encode(asdict(Limits())).decode()
    lines = [
        "#!/bin/sh",
        f"# Repeats how {_comment(title)} was made and judged, step by step, each confined as it was.",
        "#     sh reproduce.sh DATA_FOLDER [WORK_FOLDER]",
        "# DATA_FOLDER is the gateway's; `python` must be one that has forgeway. Every step leaves answer.json.",
        "set -eu",
        'data=$(realpath "$1") work=$(realpath "${2:-.}")',
        """blob() { printf '%s/blobs/sha256/%.2s/%s' "$data" "$1" "$1"; }""",
    ]
    made: dict[Digest, str] = {}
    for number, (step, files) in enumerate(trail, start=1):
        folder = f"{number}-{step.name}"
        named = " ".join(
            shlex.quote(name) + "=" + made.get(digest, f'"$(blob {digest})"') for name, digest in step.inputs.items()
        )
        lines += [
            "",
            f'mkdir -p "$work/{folder}"',
            f'cd "$work/{folder}"',
            "cat > request.json <<'REQUEST'",
            msgspec.json.encode(step.params).decode(),
            "REQUEST",
            f"python -m model_store.sandbox {shlex.quote(limits)} compilers.steps {step.name} request.json {named}",
        ]
        made |= {
            digest: f'"$work/{folder}"/{shlex.quote(name)}'
            for name, digest in files.items()
            if digest not in made and digest not in step.inputs.values()
        }
    return "\n".join([*lines, ""]).encode()


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)

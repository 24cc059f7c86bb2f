"""One step of compiling, in a confined child: resumed when done before, cancelled when asked, repeatable by hand.

What was answered under a step's key is never computed again: a crash resumes behind the last finished step, a twin
model reuses them all. Only answers are kept; a child that crashed or ran out of time may fare better the next time.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from compilers.cores import Tending, idle_class
from compilers.patience import patiently
from compilers.reproduce import reproduce_script
from compilers.stepkey import Step
from compilers.traffic import Traffic
from model_store.entities import Digest, Job
from model_store.sandbox import GIB, Limits, Outcome, run_confined
from model_store.store import ModelStore

ANSWER = "answer.json"


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
    """Runs the steps of one job. `stopped` is asked all the time; no step outlives `deadline` (seconds of `clock`)."""

    def __init__(
        self,
        store: ModelStore,
        job: Job,
        workdir: Path,
        *,
        nice: int,
        stopped: Callable[[], bool],
        traffic: Traffic | None = None,
    ) -> None:
        self.store = store
        self.job = job
        self.deadline = math.inf
        self.trail: list[tuple[Step, Mapping[str, Digest]]] = []
        self._workdir = workdir
        self._nice = nice
        self._stopped = stopped
        self._traffic = traffic or Traffic()

    def clock(self) -> float:
        """What deadlines are counted in: slower seconds while compiling makes way for requests."""
        return self._traffic.clock()

    @property
    def out_of_time(self) -> bool:
        return self.clock() >= self.deadline

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

    def keep_script(self, title: str) -> Digest:
        """Keep a script that repeats the trail, as long as the results of steps are kept, and name it in the log."""
        script = self.store.blobs.put_bytes(reproduce_script(title, self.trail))
        key = hashlib.sha256(f"reproduce {script}".encode()).hexdigest()
        patiently(lambda: self.store.catalog.record_step(key, "reproduce", {"title": title}, (script,)))
        self.tell("reproduce", "log", f"to repeat {title}: blob {script}", {"script": script})
        return script

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
            tending = Tending(step.name, self._nice, self._traffic)
            limits = Limits(
                seconds=min(86_400.0, max(0.1, self.deadline - self.clock())),
                nice=self._nice,
                idle=idle_class(self._nice),
                cores=tending.cores,
                writable=(str(workdir),),
                readable=(str(workdir), str(self.store.blobs.root), str(Path(__file__).resolve().parent)),
            )
            outcome = run_confined(
                "compilers.steps",
                [step.name, "request.json", *(f"{name}={path}" for name, path in inputs.items())],
                limits=limits,
                workdir=workdir,
                cancelled=self._stopped,
                tend=tending,
                clock=self.clock,
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

"""One trial of a search: build a recipe, screen it by latency, then hold it against the gate until that is clear.

Kernels do not look at numbers: of graphs that differ only in their constants (another calibrator, another rounding)
one is timed and stands for all. A recipe that makes a model which was tried before is not measured again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from compilers import pipeline, walk, words
from compilers.isolate import Done, Isolation, StepFailed
from compilers.proving import gate
from compilers.proving.accuracy import Until
from compilers.proving.gate import Bounds, Finding
from compilers.recipe import Recipe
from compilers.search.purpose import TIMED, together
from compilers.search.study import Found, State, Tried
from compilers.timing.measure import WIN
from compilers.transforming import transform
from compilers.walk import Subject
from model_store.entities import REFERENCE, Agreement, Artifact, Timing


@dataclass(frozen=True, slots=True)
class Trials:
    """What all trials of a search share. `serving`: rows -> the speed-up of what serves there, 1 for the reference."""

    subject: Subject
    isolation: Isolation
    bounds: Bounds
    serving: Mapping[int, float]
    tried: Callable[[], Sequence[Tried]]

    def evaluate(self, recipe: Recipe) -> Found:
        try:
            return self._evaluate(recipe)
        except StepFailed as exc:
            return Found("failed", words=str(exc))

    def _evaluate(self, recipe: Recipe) -> Found:
        """Raises StepFailed."""
        name = self.subject.variant_id(recipe)
        transformed = transform(self.subject, recipe, self.isolation)
        model = _digest(transformed.files["model.onnx"], recipe)
        earlier = self.tried()
        for twin in earlier:
            if twin.found.model == model:
                return replace(twin.found, words=f"the very model of trial {twin.number}")
        built = self.isolation.run(walk.build(self.subject, recipe, transformed.files["model.onnx"]), name)
        artifact = pipeline.artifact_of(self.isolation, built)
        structure = _digest(transformed.result["structure"], recipe)
        alike = next((each.found for each in earlier if each.found.structure == structure), None)
        screened = alike or self._screen(artifact, name, structure)
        found = replace(screened, state="slow", violation=0.0, model=model)
        if not found.faster:
            than = words.times(together(self.serving))
            return replace(found, words=f"{words.times(found.ratio)}: not faster than what serves ({than})")
        return self._judge(found, self._agree(artifact, name))

    def _agree(self, artifact: Artifact, name: str) -> Done:
        expected = self.isolation.run(walk.reference_outputs(self.subject), REFERENCE)
        step = walk.agree(self.subject, artifact, expected.files["outputs.npz"], self.bounds, Until.DECIDED)
        return self.isolation.run(step, name)

    def _judge(self, found: Found, agreed: Done) -> Found:
        agreement = msgspec.convert(agreed.result["agreement"], Agreement)
        judgement = gate.judge(agreement, self.bounds)
        beyond = gate.violation(agreement, self.bounds)
        if agreed.result["decided"] == Finding.PASSED or judgement.finding is Finding.PASSED:
            told = f"{words.times(found.ratio)}; {gate.describe(agreement)}"
            return replace(found, state="right", violation=min(beyond, -1e-6), words=told)
        state: State = "open" if judgement.finding is Finding.INCONCLUSIVE else "wrong"
        return replace(found, state=state, violation=max(beyond, 1e-6), words=judgement.reason)

    def _screen(self, artifact: Artifact, name: str, structure: str) -> Found:
        """Timed briefly at the rows of the objectives. Where it is slower than what serves, the latter goes on."""
        policy = self.subject.policy
        wanted = [each for each in (policy.objective, policy.second_objective) if each is not None]
        step = walk.measure(self.subject, artifact, rows=sorted(self.serving), seconds=walk.SCREENED_SECONDS)
        measured = self.isolation.run(step, name)
        at = {timing.rows: timing for timing in msgspec.convert(measured.result["timings"], tuple[Timing, ...])}
        if not at:
            raise StepFailed("too slow to time")
        sizes = {"size": float(artifact.size_bytes), "memory": float(measured.result["variant_memory_bytes"])}
        ratios = {
            objective: together({count: max(at[count].speedup, self.serving[count]) for count in counts})
            for objective in {policy.objective, *wanted}
            if (counts := [count for count in policy.rows_of(objective) if count in at] or list(at))
        }
        values = tuple(sizes[each] if each in sizes else 1 / ratios[each] for each in wanted)
        faster = any(timing.speedup_upper > max(WIN, self._floor(count)) for count, timing in at.items())
        return Found("slow", values, structure=structure, ratio=ratios[policy.objective], faster=faster)

    def _floor(self, rows: int) -> float:
        """What must be exceeded at `rows`: what serves there, where speed is what is looked for."""
        return self.serving[rows] if self.subject.policy.objective in TIMED else 1.0


def _digest(what: str, recipe: Recipe) -> str:
    """Of a model (or its structure) together with how the target opens it."""
    options = msgspec.json.encode(dict(recipe.options), order="deterministic").decode()
    return hashlib.sha256(f"{what} {options}".encode()).hexdigest()

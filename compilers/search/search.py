"""The search: recipes beyond the first candidates, where they can still pay, within the policy's budget.

For each candidate with knobs (compilers.search.space) it asks first whether there is anything to gain: a precision that
failed the gate but would be fast is *rescued*, one that gains little is *tuned*; everything else is left alone, and the
job's log says why. Where no calibration rescues int8, and for bf16 where there is none to choose, the most sensitive
nodes stay in float: how many is found by doubling and bisection over a ranking made once.

Trials only choose. What they choose goes through the whole compile walk, every sample and the long measurement, before
it is published. Trials are steps and journal entries: a killed search repeats none (compilers.search.study).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec

from compilers import hardware, pipeline, walk
from compilers.isolate import Isolation, StepFailed
from compilers.passes import source_digest
from compilers.pipeline import Rejected
from compilers.proving import gate
from compilers.recipe import PassSpec, Recipe
from compilers.search.bisection import Answer, fewest
from compilers.search.gain import GAIN, dominates, since_gain
from compilers.search.purpose import TIMED, Purpose, purpose_of, serving_speedups
from compilers.search.space import Choice, Space, space_of
from compilers.search.study import Found, Study, Trial, Tried
from compilers.search.trial import Trials
from compilers.search.warm import earlier_choices
from compilers.stepkey import tool_versions
from compilers.transforming import transform
from compilers.walk import Subject
from model_store.entities import REFERENCE, Variant, Verdict

FINALS = 3
"""Choices that go through the whole walk before a search that chose well on few samples gives up."""

FRONT_MOST = 4

RESCUE_PATIENCE = 3
"""Calibrations in a row that bring a rescue no nearer to its gate, before nodes are left in float instead."""

LOOK_ON = 2
"""Trials after the one that rescued."""


def improve(subject: Subject, tried: Sequence[tuple[Recipe, Variant]], isolation: Isolation) -> Iterator[Variant]:
    """Variants found beyond the candidates `tried`, as they are proven; candidates again whose reason has changed."""
    rescues = []
    # The lower precision first: where it is rescued, the higher one has less to add.
    for recipe, candidate in sorted(tried, key=lambda each: each[0].precision != "int8"):
        space = space_of(recipe, subject.version.operators, subject.policy)
        if space is None or subject.version.samples is None:
            continue
        bounds = gate.bounds_for(recipe.precision, subject.policy.gate, lossless=recipe.lossless)
        purpose, why = purpose_of(candidate, subject.policy, bounds)
        if purpose is Purpose.TUNE and not space.knobs:
            purpose, why = None, "no search: right, and there is nothing to tune"
        told = {"subject": candidate.id, "purpose": purpose}
        isolation.tell("search", "log", f"{candidate.id}: {why}", told)
        if purpose is not None:
            search = _Search(subject, space, candidate, purpose, isolation)
            yield from search.run()
            rescues += [search] if purpose is Purpose.RESCUE else []
    for search in rescues:  # now it is known what serves instead
        yield search.told()


class _Search:
    """One study around one candidate."""

    def __init__(
        self, subject: Subject, space: Space, candidate: Variant, purpose: Purpose, isolation: Isolation
    ) -> None:
        self.subject = subject
        self.space = space
        self.candidate = candidate
        self.purpose = purpose
        self.isolation = isolation
        self.policy = subject.policy
        catalog, version = isolation.store.catalog, subject.version
        warm = earlier_choices(catalog, version, subject.target, space)
        self.study = Study(isolation.store.searches / f"{self._key()}.journal", space, self.policy, warm)
        wanted = (self.policy.objective, self.policy.second_objective)
        rows = sorted({count for objective in wanted if objective for count in self.policy.rows_of(objective)})
        rows = rows if subject.max_rows > 1 else [1]
        others = [each for each in catalog.variants(version.name, version.version) if each.id != candidate.id]
        serving = [each for each in others if each.verdict is Verdict.SERVING and each.id != REFERENCE]
        bounds = gate.bounds_for(space.base.precision, self.policy.gate, lossless=space.base.lossless)
        self.trials = Trials(subject, isolation, bounds, serving_speedups(serving, rows), self.study.tried)
        self.ranking: dict[str, float] = {}
        self.published: list[Variant] = []

    def run(self) -> Iterator[Variant]:
        if self.study.ended is None:
            self.study.end(self._try_all())
        tried, published = self.study.tried(), self.published
        for final in self._finals(tried):
            variant = self._prove(final)
            if variant is not None:
                published.append(variant)
                yield variant
            if len(published) >= (1 if self.policy.second_objective is None else FRONT_MOST):
                break
        summary = f"{_recipes(tried)}; {self.study.ended}"
        found = ", ".join(variant.id for variant in published) or "nothing better"
        self._tell("done", f"{summary}; found {found}", {"trials": len(tried), "ended": self.study.ended})

    def told(self) -> Variant:
        """The candidate with what became of its rescue in its reason."""
        return replace(self.candidate, reason=f"{self.candidate.reason}; {self._epilogue()}")

    def _try_all(self) -> str:
        """Ask and try until there is a reason to stop, which is returned."""
        first = self._try(self.space.first)
        if self.isolation.out_of_time:
            return f"the budget of {self.policy.budget_seconds:g} s is spent"
        if first.state == "failed" or (first.state == "slow" and self.purpose is Purpose.RESCUE):
            return f"not worth it: {first.words}"
        ended = self._sample()
        compared = [each for each in self.study.tried() if each.found.state in ("right", "wrong", "open")]
        best = min(compared, key=lambda each: each.found.violation, default=None)
        if best is not None and best.found.state != "right" and not self.isolation.out_of_time:
            ended = f"{ended}; {self._leave_out(best.choice)}"
        return ended

    def _sample(self) -> str:
        while True:
            tried = self.study.tried()
            if len(tried) >= self.policy.budget_trials:
                return f"the budget of {self.policy.budget_trials} trials is spent"
            if self.isolation.out_of_time:
                return f"the budget of {self.policy.budget_seconds:g} s is spent"
            if since_gain(tried) >= self._patience:
                return f"no gain for {self._patience} trials"
            if self._rescued(tried):
                return "rescued"
            trial = self.study.ask()
            if trial is None:
                return "every choice was tried"
            self._evaluate(trial)

    @property
    def _patience(self) -> int:
        own = self.policy.search.patience
        rescues = self.purpose is Purpose.RESCUE and self.policy.search.effort != "full"
        return min(own, RESCUE_PATIENCE) if rescues else own

    def _rescued(self, tried: Sequence[Tried]) -> bool:
        """A rescue looks on a little, for a recipe that is nearer the reference; tuning is what full effort is for."""
        first = next((at for at, each in enumerate(tried) if each.found.state == "right"), len(tried))
        return self.purpose is Purpose.RESCUE and self.policy.search.effort != "full" and len(tried) - first > LOOK_ON

    def _leave_out(self, choice: Choice) -> str:
        """The fewest of the most sensitive nodes that must stay in float: doubled until it passes, then bisected."""
        self._rank(choice)
        nodes = len(self.ranking)

        def ask(without: int) -> Answer:
            if self.isolation.out_of_time:
                return "no use"
            state = self._try(choice, without).state
            return "enough" if state == "right" else "no use" if state in ("slow", "failed") else "not enough"

        passed, low = fewest(nodes - 1, ask)
        if passed is None:
            return f"leaving the {low} most sensitive of {nodes} nodes in float is not enough, and more would not pay"
        return f"{passed} of {nodes} nodes left in float"

    def _try(self, choice: Choice, without: int = 0) -> Found:
        asked = self.study.ask_for(choice, without)
        return asked if isinstance(asked, Found) else self._evaluate(asked)

    def _evaluate(self, trial: Trial) -> Found:
        recipe = self._recipe(trial.choice, trial.without)
        found = self.trials.evaluate(recipe)
        told = {"trial": trial.number, "recipe": recipe.name, "choice": trial.choice, "without": trial.without}
        told |= {"state": found.state, "values": found.values, "violation": found.violation}
        self._tell("progress", f"trial {trial.number}, {recipe.name}: {found.state}: {found.words}", told)
        if found.state != "failed" or not self.isolation.out_of_time:  # cut off is not failed: it may be tried again
            self.study.tell(trial, found)
        return found

    def _finals(self, tried: Sequence[Tried]) -> list[Tried]:
        """What goes through the whole walk: what gains most first; of equals, what is nearest the reference."""
        right = [each for each in tried if each.found.state == "right"]
        if self.purpose is Purpose.TUNE and self.policy.objective in TIMED and self.policy.second_objective is None:
            # The candidate itself was the first trial, timed as briefly as the others.
            right = [each for each in right if each.found.ratio > tried[0].found.ratio / GAIN]
        if self.policy.second_objective is not None:
            right = [each for each in right if not any(dominates(other.found, each.found) for other in right)]
        ranked = sorted(right, key=lambda each: (round(each.found.values[0], 3), each.found.violation))
        return ranked[: FINALS if self.policy.second_objective is None else FRONT_MOST]

    def _prove(self, final: Tried) -> Variant | None:
        """The chosen recipe through the whole walk; None where it does not serve after all, or is the candidate."""
        recipe = self._recipe(final.choice, final.without)
        if recipe.name == self.space.base.name:
            return None
        outcome = pipeline.compile_variant(self.subject, recipe, self.isolation)
        if isinstance(outcome, Rejected) or outcome.verdict is not Verdict.SERVING or outcome.evidence is None:
            reason = outcome.reason
            self._tell("log", f"{recipe.name} looked right and is not, on all samples: {reason}", {})
            return None
        kept = {**outcome.evidence.recipe, "base": self.space.base.name, "choice": final.choice}
        evidence = replace(outcome.evidence, recipe=kept, sensitivity=dict(self.ranking))
        return replace(outcome, evidence=evidence)

    def _recipe(self, choice: Choice, without: int) -> Recipe:
        left = []
        if without:
            self._rank(choice)
            left = list(self.ranking)[:without]
        return self.space.recipe(choice, left)

    def _rank(self, choice: Choice) -> None:
        """Rank the nodes of the float model, the most sensitive first; what cannot be ranked leaves nothing out."""
        if self.ranking:
            return
        name, prefix = self.candidate.id, self.space.prefix(choice)
        try:
            model = transform(self.subject, prefix, self.isolation).files["model.onnx"]
            step = walk.sensitivity(self.subject, self.space.base, model)
            result = self.isolation.run(step, name).result
            self.ranking = {node: result["decibels"][node] for node in result["order"]}
        except StepFailed as exc:
            self._tell("log", f"the nodes could not be ranked: {exc}", {})

    def _epilogue(self) -> str:
        if self.published:
            return f"rescued as {', '.join(variant.id for variant in self.published)}"
        version = self.subject.version
        every = self.isolation.store.catalog.variants(version.name, version.version)
        serving = [each.id for each in every if each.verdict is Verdict.SERVING and each.id != REFERENCE]
        instead = f"{', '.join(serving)} serve{'s' * (len(serving) == 1)}" if serving else "the reference serves"
        return f"not rescued, {instead} instead: {_recipes(self.study.tried())}, {self.study.ended}"

    def _key(self) -> str:
        """sha256 of everything that decides what trials come to."""
        version, policy = self.subject.version, self.policy
        parts: list[Choice] = [{}, *self.space.ladder]
        passes = {source_digest(spec.name) for part in parts for spec in self._passes(part)}
        facts = {
            "model": version.model,
            "samples": version.samples,
            "target": self.subject.target,
            "base": self.space.base.digest(),
            "knobs": [(knob.name, knob.values) for knob in self.space.knobs],
            "passes": sorted(passes),
            "policy": policy.model_dump(mode="json", exclude={"targets", "priority", "serve_unproven"}),
            "purpose": self.purpose,
            "tools": tool_versions(),
            "hardware": hardware.fingerprint(),
        }
        return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()

    def _passes(self, part: Choice) -> Sequence[PassSpec]:
        return self.space.recipe(self.space.whole(part), without=("any",)).passes

    def _tell(self, status: str, text: str, data: dict[str, object]) -> None:
        self.isolation.tell("search", status, f"{self.candidate.id}: {text}", {"subject": self.candidate.id} | data)


def _recipes(tried: Sequence[Tried]) -> str:
    return f"{len(tried)} recipe{'s' if len(tried) != 1 else ''} tried"

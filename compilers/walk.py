"""The steps of the walk as data: what each one is asked, on which blobs.

Whatever decides an answer must be in here, since a step's key is made of it; whatever does not, must not, or twins
would not recognise each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from compilers import hardware
from compilers.passes import kinds, source_digest, takes_samples, takes_statistics
from compilers.passes.kinds import ELEMENTWISE, KEPT, PRODUCTS
from compilers.proving.accuracy import Until
from compilers.proving.gate import Bounds
from compilers.recipe import FOLD, MODERN, TIDY, PassSpec, Recipe
from compilers.stepkey import Step
from compilers.timing.plan import Setting, by, settings
from model_store.entities import Artifact, Digest, ModelVersion, Plan
from model_store.policy import Policy

REFERENCE_TARGET = "ort-cpu"
REFERENCE_OPTIONS = {"precision": "f32", "reference": True}

COMPARED_ROWS_MOST = 64
OUTPUTS_MOST_BYTES = 1 << 30
OUTPUTS_SHARE = 1 / 6
"""Of the budget, for running the reference over the samples: every variant takes about as long again."""
TIMED_SECONDS, TIMED_MOST_SECONDS = 5.0, 30.0
TIMED_SHARE = 1 / 60
"""Of the budget, for timing one variant: whoever grants little time gets wider intervals."""
SCREENED_SECONDS = 1.0
"""A trial of a search is timed just long enough to tell it from what serves."""
RANKED_SECONDS, RANKED_SHARE = 60.0, 1 / 10
PLANNED_SECONDS, PLANNED_MOST_SECONDS = 4.0, 8.0
PLANNED_SHARE = 1 / 120


@dataclass(frozen=True, slots=True)
class Subject:
    """What is being compiled, and how the reference behaves on this machine."""

    version: ModelVersion
    policy: Policy
    target: str
    max_rows: int
    guess: int
    threads: int
    plan: Plan | None = None
    """The reference's, once it is measured."""
    sizes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Input -> its shape for one row."""
    samples: int = 0

    @property
    def setting(self) -> Setting:
        """In which the reference serves, and everything is measured against it."""
        return Setting(self.threads) if self.plan is None else Setting(self.plan.threads, self.plan.instances)

    def variant_id(self, recipe: Recipe) -> str:
        return f"{self.target}.{recipe.name}"


def probe(version: ModelVersion) -> Step:
    params = _reference() | {"signature": _plain(version.signature)}
    return Step("probe", params, _reference_files(version) | _samples(version))


def prepare(subject: Subject, recipe: Recipe) -> Step:
    """The recipe up to where it stops tidying: equal beginnings are one step, whatever follows."""
    return _passes(subject, recipe.passes[: _tidied(recipe)], {"model": subject.version.model})


def calibrate(subject: Subject, recipe: Recipe, prepared: Digest) -> Step:
    """Statistics of the prepared model; with Gram matrices where the recipe rounds by them."""
    grams = any(spec.params.get("rounding") == "gptq" for spec in recipe.passes)
    params = {"grams": grams, "signature": _plain(subject.version.signature)}
    return Step("calibrate", params, {"model": prepared} | _samples(subject.version))


def transform(
    subject: Subject, recipe: Recipe, prepared: Digest | None = None, statistics: Digest | None = None
) -> Step:
    """The recipe's passes over the uploaded model, or over the `prepared` one, those that were left."""
    if prepared is None:
        return _passes(subject, recipe.passes, {"model": subject.version.model})
    inputs = {"model": prepared} | ({} if statistics is None else {"statistics": statistics})
    return _passes(subject, recipe.passes[_tidied(recipe) :], inputs)


def begins_alike(recipe: Recipe) -> bool:
    """It tidies the model, as other recipes do, and then does something of its own."""
    return 0 < _tidied(recipe) < len(recipe.passes) or observes(recipe)


def observes(recipe: Recipe) -> bool:
    """One of its passes works from statistics."""
    return any(takes_statistics(spec) for spec in recipe.passes)


def _tidied(recipe: Recipe) -> int:
    """How many passes at its beginning make a model simpler, whatever is to be done with it."""
    own = (at for at, spec in enumerate(recipe.passes) if spec not in (MODERN, *TIDY, FOLD))
    return next(own, len(recipe.passes))


def _passes(subject: Subject, specs: Sequence[PassSpec], inputs: Mapping[str, Digest]) -> Step:
    calibrated = any(takes_samples(spec) for spec in specs)
    params = {
        "passes": [{"name": spec.name, "params": dict(spec.params)} for spec in specs],
        "pass_sources": [source_digest(spec.name) for spec in specs],  # recipes that begin alike share the step
        "calibrated": calibrated,
        "signature": _plain(subject.version.signature),
        "sizes": {name: list(shape) for name, shape in subject.sizes.items()},
    }
    return Step("transform", params, {**inputs, **(_samples(subject.version) if calibrated else {})})


def build(subject: Subject, recipe: Recipe, model: Digest) -> Step:
    return Step("build", {"target": subject.target, "options": dict(recipe.options)}, {"model": model})


def reference_outputs(subject: Subject) -> Step:
    params = _reference() | _fed(subject)
    params |= {"most_bytes": OUTPUTS_MOST_BYTES, "seconds": round(subject.policy.budget_seconds * OUTPUTS_SHARE, 1)}
    return Step("outputs", params, _reference_files(subject.version) | _samples(subject.version))


def agree(subject: Subject, artifact: Artifact, outputs: Digest, bounds: Bounds, until: Until = Until.FAILED) -> Step:
    metric = subject.policy.gate.metric
    params = {"target": subject.target, "options": dict(artifact.options), "threads": subject.threads} | _fed(subject)
    params |= {"metric": metric and metric.expression, "bounds": _plain(bounds), "until": until}
    inputs = {f"artifact/{name}": digest for name, digest in artifact.files.items()} | {"outputs": outputs}
    return Step("agree", params, inputs | _samples(subject.version))


def measure(
    subject: Subject,
    artifact: Artifact,
    *,
    rows: Sequence[int] | None = None,
    seconds: float = TIMED_SECONDS,
    setting: Setting | None = None,
) -> Step:
    """Times at every batch size of the policy, or at `rows`, in `seconds` or the budget's share if that is less."""
    params = {
        "reference": {"target": REFERENCE_TARGET, "options": REFERENCE_OPTIONS} | _plain(subject.setting),
        "variant": {"target": subject.target, "options": dict(artifact.options)} | _plain(setting or subject.setting),
        "by": by(subject.policy.objective),
        "seconds": round(min(seconds, subject.policy.budget_seconds * TIMED_SHARE), 1),
        "most_seconds": TIMED_MOST_SECONDS,
        **_fed(subject),
        "rows": list(subject.policy.timed_rows if rows is None else rows),
    }
    inputs = {"reference/model.onnx": subject.version.model}
    inputs |= {f"variant/{name}": digest for name, digest in artifact.files.items()}
    return Step("measure", params, inputs | _samples(subject.version))


def plan(subject: Subject, artifact: Artifact, target: str) -> Step:
    """What threads, instances and batch sizes of `artifact` are worth here, for the policy's objective."""
    params = {
        "variant": {"target": target, "options": dict(artifact.options)},
        "settings": [_plain(setting) for setting in settings(subject.threads)],
        "objective": subject.policy.objective,
        "seconds": round(min(PLANNED_SECONDS, subject.policy.budget_seconds * PLANNED_SHARE), 1),
        "most_seconds": round(min(PLANNED_MOST_SECONDS, subject.policy.budget_seconds * TIMED_SHARE), 1),
        **_fed(subject),
        "rows": list(subject.policy.timed_rows),
    }
    inputs = {f"variant/{name}": digest for name, digest in artifact.files.items()}
    return Step("plan", params, inputs | _samples(subject.version))


def sensitivity(subject: Subject, recipe: Recipe, model: Digest) -> Step:
    """Rank the nodes of a float `model` by what the `recipe`'s precision costs at each of them."""
    params = {
        "precision": recipe.precision,
        "kinds": lowered(recipe, subject.version.operators),
        "seconds": round(min(RANKED_SECONDS, subject.policy.budget_seconds * RANKED_SHARE), 1),
        "signature": _plain(subject.version.signature),
        "rowwise": subject.max_rows > 1,
        "threads": subject.threads,
    }
    return Step("sensitivity", params, {"model": model} | _samples(subject.version))


def lowered(recipe: Recipe, operators: Mapping[str, int]) -> tuple[str, ...]:
    """Kinds of operators whose precision the recipe lowers; only products where that is all it does to a model."""
    if recipe.precision != "int8":
        return tuple(sorted(set(operators) - KEPT))
    regions = recipe.passes[-1].name == "int8-static" and not kinds.attend(operators)
    return (*PRODUCTS, *ELEMENTWISE) if regions else PRODUCTS


def _reference() -> dict[str, Any]:
    return {"target": REFERENCE_TARGET, "options": REFERENCE_OPTIONS, "threads": hardware.usable_cores()}


def _reference_files(version: ModelVersion) -> dict[str, Digest]:
    return {"artifact/model.onnx": version.model}


def _fed(subject: Subject) -> dict[str, Any]:
    """What decides which inputs a step runs on: batch sizes a request may meet, in turns."""
    return {
        "signature": _plain(subject.version.signature),
        "guess": subject.guess,
        "rowwise": subject.max_rows > 1,
        "rows": sorted({min(rows, COMPARED_ROWS_MOST) for rows in subject.policy.timed_rows}),
    }


def _samples(version: ModelVersion) -> dict[str, Digest]:
    return {} if version.samples is None else {"samples": version.samples}


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)

"""What int8 costs each layer, for the reader of a proof card, where no search had to ask.

It decides nothing, so it comes last, is short, and only happens in what is left of the budget; and of a variant that is
right and gains nothing nobody asks. Ranked is the float model, so that targets that quantize the same one share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from compilers import walk
from compilers.isolate import Isolation, StepFailed
from compilers.passes import kinds
from compilers.recipe import Recipe
from compilers.search.space import space_of
from compilers.transforming import transform
from compilers.walk import Subject
from model_store.entities import Variant, Verdict

SECONDS = 10.0
"""For one ranking: layers that are not reached are ranked by their own error instead of the outputs'."""


def ranked(subject: Subject, recipes: Sequence[Recipe], isolation: Isolation) -> Iterator[Variant]:
    """The calibrated int8 candidates again, each with the sensitivity of its layers, unless a search ranked them."""
    version = subject.version
    if version.samples is None or subject.policy.search.effort == "off":
        return
    published = {each.id: each for each in isolation.store.catalog.variants(version.name, version.version)}
    for recipe in recipes:
        variant = published.get(subject.variant_id(recipe))
        space = space_of(recipe, version.operators, subject.policy)
        if variant is None or variant.evidence is None or variant.evidence.sensitivity or isolation.out_of_time:
            continue
        if variant.verdict is Verdict.ELIGIBLE:
            continue
        if space is None or not recipe.calibrated or recipe.precision != "int8":
            continue
        try:
            model = transform(subject, space.prefix(space.first), isolation).files["model.onnx"]
            step = walk.sensitivity(subject, recipe, model)
            params = {**step.params, "seconds": min(SECONDS, step.params["seconds"]), "kinds": kinds_of(subject)}
            result = isolation.run(replace(step, params=params), variant.id).result
        except StepFailed as exc:
            told = {"subject": variant.id}
            isolation.tell("sensitivity", "log", f"{variant.id}: its layers could not be ranked: {exc}", told)
            continue
        decibels = {node: result["decibels"][node] for node in result["order"]}
        yield replace(variant, evidence=replace(variant.evidence, sensitivity=decibels))


def kinds_of(subject: Subject) -> tuple[str, ...]:
    """What any quantizer lowers in such a model: NNCF too keeps regions in int8 where nothing attends."""
    return kinds.PRODUCTS if kinds.attend(subject.version.operators) else (*kinds.PRODUCTS, *kinds.ELEMENTWISE)

"""A recipe's passes over a model, by way of one calibration that every recipe for it shares.

Passes that work from statistics split a recipe: what comes before them is one step, the statistics of what that made
are the next, and only what follows differs from trial to trial of a search.
"""

from __future__ import annotations

from compilers import walk
from compilers.isolate import Done, Isolation
from compilers.recipe import Recipe
from compilers.walk import Subject


def transform(subject: Subject, recipe: Recipe, isolation: Isolation) -> Done:
    """The transformed model (`files["model.onnx"]`) and what is known of its graph. Raises StepFailed."""
    name = subject.variant_id(recipe)
    if not walk.observes(recipe):
        return isolation.run(walk.transform(subject, recipe), name)
    prepared = isolation.run(walk.prepare(subject, recipe), f"{name}, up to its calibration").files["model.onnx"]
    statistics = isolation.run(walk.calibrate(subject, recipe, prepared), name).files["statistics.npz"]
    return isolation.run(walk.transform(subject, recipe, prepared, statistics), name)

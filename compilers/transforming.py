"""A recipe's passes over a model, by way of what recipes for it share: one tidied model, one calibration.

What tidies is one step. Passes that work from statistics have those of what it made; and only what follows differs from
recipe to recipe, and from trial to trial of a search.
"""

from __future__ import annotations

from compilers import walk
from compilers.isolate import Done, Isolation
from compilers.recipe import Recipe
from compilers.walk import Subject


def transform(subject: Subject, recipe: Recipe, isolation: Isolation) -> Done:
    """The transformed model (`files["model.onnx"]`) and what is known of its graph. Raises StepFailed."""
    name = subject.variant_id(recipe)
    if not walk.begins_alike(recipe):
        return isolation.run(walk.transform(subject, recipe), name)
    tidied = isolation.run(walk.prepare(subject, recipe), f"{name}, tidied").files["model.onnx"]
    if not walk.observes(recipe):
        return isolation.run(walk.transform(subject, recipe, tidied), name)
    statistics = isolation.run(walk.calibrate(subject, recipe, tidied), name).files["statistics.npz"]
    return isolation.run(walk.transform(subject, recipe, tidied, statistics), name)

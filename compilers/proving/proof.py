"""What Evidence tells of a variant beyond agreement and time: what was asked, what was done, on which data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compilers.passes import takes_samples
from compilers.precision import at_precision
from compilers.proving.gate import Bounds
from compilers.recipe import Recipe
from compilers.samples import split
from compilers.walk import Subject
from model_store.entities import Agreement


def asked(bounds: Bounds, agreement: Agreement | None) -> dict[str, float]:
    """The bounds that were held against the figures; by default only a classifier is asked for classes and labels."""
    found = {"sqnr_db": bounds.sqnr_db, "cosine": bounds.cosine, "top1": bounds.top1, "max_drop": bounds.max_drop}
    found |= {"metric_least": bounds.metric_least, "metric_most": bounds.metric_most}
    if not bounds.given and (agreement is None or agreement.top1 is None):
        found["top1"] = None
    if not bounds.given and (agreement is None or agreement.label_accuracy is None):
        found["max_drop"] = None
    return {name: bound for name, bound in found.items() if bound is not None}


def made_by(recipe: Recipe) -> dict[str, Any]:
    """Field of Evidence: the passes with their parameters, in order."""
    return {"passes": [{"name": spec.name, "params": dict(spec.params)} for spec in recipe.passes]}


def arithmetic(transformed: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of Evidence: MACs of a row, the share of them at each precision as this target runs them, int8 regions."""
    return {
        "macs": transformed.get("macs"),
        "precision_share": at_precision(transformed.get("precision_share", {}), options),
        "regions": transformed.get("regions", {}),
    }


def calibration(subject: Subject, recipe: Recipe) -> dict[str, Any]:
    """Fields of Evidence: the fingerprint of the data that calibrated it; nothing where nothing did."""
    passes = [{"name": spec.name, "params": dict(spec.params)} for spec in recipe.passes if takes_samples(spec)]
    if not passes or subject.version.samples is None:
        return {}
    drawn = split(subject.samples)
    return {
        "samples": subject.version.samples,
        "count": subject.samples,
        "calibration": len(drawn.calibration),
        "validation": len(drawn.validation),
        "passes": passes,
    }

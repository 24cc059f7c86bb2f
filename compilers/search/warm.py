"""What earlier models teach: choices that served others of the same operators are tried first."""

from __future__ import annotations

import math
from collections.abc import Mapping

from compilers.search.space import Space
from model_store.catalog import Catalog
from model_store.entities import ModelVersion, Variant, Verdict

ALIKE = 0.98
"""Least cosine between two counts of operators: the same architecture, deeper or shallower, is alike."""

MODELS_MOST, CHOICES_MOST = 100, 3


def earlier_choices(catalog: Catalog, version: ModelVersion, target: str, space: Space) -> list[dict[str, object]]:
    """Choices of this space that serve versions with the same operator mix, the fastest first."""
    found: dict[str, tuple[float, dict[str, object]]] = {}
    for model in list(catalog.models())[:MODELS_MOST]:
        for other in catalog.versions(model.name)[-2:]:
            if (other.name, other.version) == (version.name, version.version):
                continue
            if likeness(version.operators, other.operators) < ALIKE:
                continue
            for variant in catalog.variants(other.name, other.version):
                choice = _choice(variant, target, space)
                if choice is not None:
                    speed = max((timing.speedup for timing in variant.evidence.timings), default=0.0)  # type: ignore[union-attr]
                    found[repr(sorted(choice.items(), key=lambda item: item[0]))] = (speed, choice)
    ranked = sorted(found.values(), key=lambda pair: -pair[0])
    return [choice for _, choice in ranked[:CHOICES_MOST]]


def likeness(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Cosine between two counts of operators, 0 to 1."""
    product = sum(count * other.get(kind, 0) for kind, count in one.items())
    norms = math.sqrt(sum(count**2 for count in one.values()) * sum(count**2 for count in other.values()))
    return product / norms if norms else 0.0


def _choice(variant: Variant, target: str, space: Space) -> dict[str, object] | None:
    if variant.verdict is not Verdict.SERVING or variant.target != target or variant.evidence is None:
        return None
    recipe = variant.evidence.recipe
    if recipe.get("base") != space.base.name or "choice" not in recipe:
        return None
    choice = dict(recipe["choice"])
    return choice if space.holds(choice) else None

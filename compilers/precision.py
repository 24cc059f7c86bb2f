"""At which precision a graph's arithmetic runs once a target has been told its options."""

from __future__ import annotations

from collections.abc import Mapping


def at_precision(shares: Mapping[str, float], options: Mapping[str, object]) -> dict[str, float]:
    """The shares as a target runs them: what stayed in f32 runs at the precision it was told to infer at."""
    asked = str(options.get("inference_precision", options.get("precision", "f32")))
    name = asked if asked in ("bf16", "f16") else "f32"
    told: dict[str, float] = {}
    for precision, share in shares.items():
        key = name if precision == "f32" else precision
        told[key] = told.get(key, 0.0) + share
    return told

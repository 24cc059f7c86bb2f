"""The card as JSON: the version as `GET /v1/models/{name}/versions/{v}` shows it, and the rest of the proof."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.report.card import Card, Tried
from gateway.report.repeating import commands
from gateway.routes.views import variant_view, version_view


def card_view(card: Card) -> dict[str, Any]:
    version = card.version
    aliases = dict.fromkeys(card.aliases, version.version)
    return version_view(version, (), aliases) | {
        "complete": not card.open_jobs,
        "open_jobs": [
            {"id": job.id, "kind": job.kind, "target": job.target, "state": job.state} for job in card.open_jobs
        ],
        "objective": card.policy.objective,
        "model": {
            "sha256": version.model,
            "size_bytes": version.size_bytes,
            "stored_bytes": card.model_stored_bytes,
            "parameters": version.parameters,
            "macs": card.macs,
        },
        "samples": None if card.samples is None else msgspec.to_builtins(card.samples),
        "chosen": [
            {"rows": item.rows, "variant": item.variant, "speedup": item.timing.speedup if item.timing else None}
            | ({} if item.timing is None else {"timing": msgspec.to_builtins(item.timing)})
            for item in card.chosen
        ],
        "pareto": [
            {
                "rows": plot.rows,
                "accuracy": plot.axis.key,
                "reference_p50_s": plot.reference_p50_s,
                "gates": msgspec.to_builtins(plot.gates),
                "front": [point.variant for point in plot.front],
                "points": msgspec.to_builtins(plot.points),
            }
            for plot in card.plots
        ],
        "variants": [_tried_view(card, item) for item in card.tried],
        "commands": msgspec.to_builtins(commands(card)),
        "made_at": card.made_at,
        "forgeway": card.forgeway,
    }


def _tried_view(card: Card, item: Tried) -> dict[str, Any]:
    size = 0 if item.variant.artifact is None else item.variant.artifact.size_bytes
    return variant_view(item.variant) | {
        "answers": list(item.answers),
        "stored_bytes": item.stored_bytes,
        "times_smaller": round(card.version.size_bytes / size, 4) if size else None,
        "times_smaller_stored": round(card.version.size_bytes / item.stored_bytes, 4) if item.stored_bytes else None,
        "reproduce": None if item.script is None else msgspec.to_builtins(item.script),
    }

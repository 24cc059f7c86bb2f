"""The router's choice in words and figures, for people and for `GET /v1/models/{name}/route`."""

from __future__ import annotations

from typing import Any

from gateway.routing.forecast import Forecast, Prediction
from gateway.routing.health import Health, Subject
from gateway.routing.ranking import HYSTERESIS, VersionRoute, may_answer, speedup, timing_in
from gateway.running.session import Session
from model_store.entities import REFERENCE, Variant


def explain(route: VersionRoute, health: Health, rows: int, forecast: Forecast | None = None) -> dict[str, Any]:
    """Facts of the choice for `rows` rows: the variant, why in words, the bucket, what is expected of those who may
    answer, and every alternative. Without a `forecast` the choice is that of the evidence alone."""
    bucket = route.bucket(rows)
    choice = route.pick(rows, lambda variant, session: _usable(route, health, variant, session))
    predicted = {} if forecast is None else forecast.predictions(route, rows, lambda *one: _usable(route, health, *one))
    chosen, decision = (None, "none") if choice is None else (choice.variant, choice.why)
    if chosen in predicted and (leader := next(iter(predicted))) != chosen:
        chosen, decision = leader, "live"
    return {
        "model": route.name,
        "version": route.version,
        "rows": rows,
        "bucket": bucket,
        "buckets": list(route.buckets),
        "max_batch_rows": route.max_rows if chosen is None else route.gathered.get(chosen, route.max_rows),
        "padded_to": [] if chosen is None else list(route.padded.get(chosen, ())),
        "variant": chosen,
        "target": None if chosen is None else route.variants[chosen].target,
        "decision": decision,
        "why": _why(route, health, bucket, chosen, predicted),
        "predicted": [
            _prediction(route, forecast, variant, chosen, one, rows)
            for variant, one in predicted.items()
            if forecast is not None and chosen is not None
        ],
        "alternatives": [_row(route, health, variant, bucket) for variant in route.variants.values()],
    }


def _usable(route: VersionRoute, health: Health, variant: str, session: Session) -> bool:
    return session.ready and not health.quarantined(Subject(route.name, route.version, variant))


def _why(route: VersionRoute, health: Health, bucket: int, chosen: str | None, predicted: dict[str, Prediction]) -> str:
    """One or two sentences."""
    ranked = route.ranked[bucket]
    if chosen is None:
        states = "; ".join(f"{variant}: {_state(route, health, variant)}" for variant in ranked)
        return f"nothing can answer right now ({states})"
    words = _evidence(route.variants[chosen], bucket)
    passed_over = ranked[: ranked.index(chosen)]
    if passed_over:
        lost = "; ".join(
            f"{variant} {_slower(predicted[variant])}"
            if variant in predicted
            else f"{variant} is {_state(route, health, variant)}"
            for variant in passed_over
        )
        return f"{chosen} stands in ({words}): {lost}"
    if len(ranked) == 1:
        others = len(route.variants) - 1
        beside = f"; {others} other variant{'s' * (others != 1)} may not serve" if others else ""
        return f"{chosen} is the only variant that may serve: {words}{beside}"
    second = max(ranked[1:], key=lambda variant: speedup(route.variants[variant], bucket))
    rival = speedup(route.variants[second], bucket)
    if chosen == REFERENCE and rival > HYSTERESIS:
        return f"{chosen} stays ({words}): no variant is proven faster at {bucket} rows; {second} measured {rival:.2f}x"
    if rival > speedup(route.variants[chosen], bucket):
        margin = f"{(HYSTERESIS - 1) * 100:.0f} %"
        return f"{chosen} keeps its place ({words}): {second} is less than {margin} faster at {rival:.2f}x"
    return f"{chosen} is the fastest proven variant: {words}; next is {second} at {rival:.2f}x"


def _slower(prediction: Prediction) -> str:
    if prediction.edge is None:
        return "was slower here under live traffic"
    return f"takes {prediction.edge:.2f}x as long here under live traffic, as {prediction.tries} tries have it"


def _evidence(variant: Variant, bucket: int) -> str:
    if variant.id == REFERENCE:
        return "the uploaded model itself, 1.00x by definition"
    timing = timing_in(variant, bucket)
    if timing is None:
        return "not measured"
    words = (
        f"{timing.speedup:.2f}x the reference at {timing.rows} row{'s' * (timing.rows != 1)} "
        f"(at least {timing.speedup_lower:.2f}x), p50 {timing.p50_s * 1e3:.3g} ms against "
        f"{timing.reference_p50_s * 1e3:.3g} ms"
    )
    agreement = variant.evidence.agreement if variant.evidence else None
    if agreement is not None:
        words += f", cosine {agreement.cosine:.5f} over {agreement.samples} samples"
    return words


def _prediction(
    route: VersionRoute, forecast: Forecast | None, variant: str, leader: str, one: Prediction, rows: int
) -> dict[str, Any]:
    """When a batch that came now would be done there, from what that follows, and what is in the way of going there."""
    beside = None
    if variant != leader and forecast is not None:
        beside = forecast.side_by_side(route, leader, variant, rows)
    return {
        "variant": variant,
        "target": route.variants[variant].target,
        "finish_s": one.finish_s,
        "ahead_s": one.ahead_s,
        "run_s": one.run_s,
        "measured_s": one.measured_s,
        "live_ratio": one.edge,
        "tries": one.tries,
        "overflow": "leads" if variant == leader else _OVERFLOW[beside],
    }


_OVERFLOW = {
    True: "while the leader is busy, if it is done sooner here",
    False: "never: one runner, or side by side on one device was measured not to pay",
    None: "not yet: whether side by side on one device pays is being measured",
}


def _row(route: VersionRoute, health: Health, variant: Variant, bucket: int) -> dict[str, Any]:
    timing = timing_in(variant, bucket)
    session = route.sessions.get(variant.id)
    return {
        "variant": variant.id,
        "target": variant.target,
        "verdict": variant.verdict.value,
        "reason": variant.reason,
        "may_answer": may_answer(variant, route.serve_unproven),
        "speedup": 1.0 if variant.id == REFERENCE else (timing.speedup if timing else None),
        "speedup_lower": 1.0 if variant.id == REFERENCE else (timing.speedup_lower if timing else None),
        "p50_s": timing.p50_s if timing else None,
        "live_s_per_row": session.live.row_s if session is not None else None,
        "health": _state(route, health, variant.id),
    }


def _state(route: VersionRoute, health: Health, variant: str) -> str:
    session = route.sessions.get(variant)
    words = health.words(Subject(route.name, route.version, variant))
    if variant in route.refused:
        return f"cannot be opened here: {route.refused[variant]}"
    if session is None:
        return "not loaded" if words == "healthy" else words
    return words if session.ready or words.startswith("quarantined") else "its runner is starting"

"""The sections of the page, in order; each makes its elements from the card, or none where there is nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

import msgspec

from gateway.report import bars, curve, making, plot, repeating, units, variant_table
from gateway.report.card import Card, Chosen, Tried
from gateway.report.markup import Content, E, add
from model_store.entities import REFERENCE

SENSITIVE_SHOWN = 20


def answer(card: Card) -> Iterable[Element]:
    """What answers, in one line a batch size."""
    yield E("h2", "What answers")
    if not card.chosen:
        yield E("p", "Nothing answers yet: the uploaded model itself has not been opened and timed so far.")
        return
    for chosen in card.chosen:
        yield E("p", *_chosen_words(chosen), class_="verdict")
    words = (
        f"Objective: {card.policy.objective}. It decides among the variants that are proven right and, by the lower "
        "end of a 95 % interval, faster than the reference at that batch size. A variant that cannot be opened or "
        "falls ill is routed around meanwhile."
    )
    yield E("p", words, class_="soft")


def _chosen_words(chosen: Chosen) -> Sequence[Content]:
    told: list[Content] = [f"At {units.rows(chosen.rows)}: ", E("strong", chosen.variant)]
    if chosen.variant == REFERENCE:
        told.append(", the uploaded model itself: nothing was proven right and faster here")
    elif chosen.timing is not None:
        timing = chosen.timing
        told.append(
            f", {units.times(timing.speedup)} the reference (95 % interval {units.times(timing.speedup_lower)} to "
            f"{units.times(timing.speedup_upper, up=True)}), {units.seconds(timing.p50_s)} against "
            f"{units.seconds(timing.reference_p50_s)} (median of {timing.runs} runs each, in turns)"
        )
    return told


def pareto(card: Card) -> Iterable[Element]:
    yield E("h2", "Accuracy against latency")
    if not card.plots:
        yield E("p", "There is nothing to draw yet: no variant was both compared with the reference and timed.")
        return
    gates = "; ".join(plot.gate_words(gate, drawn.axis) for drawn in card.plots[:1] for gate in drawn.gates)
    words = (
        "Discs serve, rings are right but no faster, diamonds are unproven, crosses are wrong; the circled one answers "
        "these batches. Bars: 95 % interval. Stairs: what nothing beats in both."
    )
    yield E("p", f"{words} Dashed: the gate, {gates}." if gates else words, class_="soft")
    for drawn in card.plots:
        answers = next((point.variant for point in drawn.points if point.chosen), None)
        caption = plot.title(drawn) + (f": {answers} answers." if answers else ".")
        picture = variant_table.wide(plot.draw(drawn), plot.title(drawn))
        yield E("figure", picture, E("figcaption", caption))
    shown = {point.variant for drawn in card.plots for point in drawn.points}
    missing = [item for item in card.tried if item.variant.id not in shown and item.variant.id != REFERENCE]
    if missing:
        listed = ", ".join(item.variant.id for item in missing)
        yield E("p", f"Not drawn, because no time or no agreement was measured: {listed}.", class_="soft")


def tried(card: Card) -> Iterable[Element]:
    yield E("h2", "Everything that was tried")
    if not card.tried:
        yield E("p", "No variant has been judged yet.")
        return
    yield variant_table.wide(variant_table.table(card.tried), "Every variant")
    yield from variant_table.gates(card.tried)


def sensitivity(card: Card) -> Iterable[Element]:
    known = [item for item in card.tried if item.evidence.sensitivity]
    yield E("h2", "Sensitivity by layer")
    if not known:
        yield E("p", _unranked(card), class_="soft")
        return
    words = "Signal-to-noise ratio of the outputs when this layer alone is quantized: the lower, the more it hurts."
    yield E("p", words)
    shown: dict[tuple[tuple[str, float], ...], list[Tried]] = {}
    for item in known:  # variants of one search share their ranking
        shown.setdefault(tuple(sorted(item.evidence.sensitivity.items(), key=lambda p: p[1])), []).append(item)
    for ranked, items in shown.items():
        names = ", ".join(item.variant.id for item in items)
        yield _sensitivity_table(f"{names}: most sensitive first", ranked[:SENSITIVE_SHOWN], ranked)
        if len(ranked) > SENSITIVE_SHOWN:
            whole = _sensitivity_table(f"{names}: all layers", ranked, ranked)
            yield E("details", E("summary", f"all {len(ranked)} layers"), whole)


def _unranked(card: Card) -> str:
    if card.open_jobs:
        return "Not ranked so far: where no search asks for it, layers are ranked last."
    if card.samples is None:
        return "Not ranked: that takes samples."
    if card.policy.search.effort == "off":
        return "Not ranked: the policy has the search switched off."
    return "Not ranked: no variant calibrated for int8 is faster or failed, or the budget was spent before their turn."


def _sensitivity_table(
    caption: str, ranked: Sequence[tuple[str, float]], among: Sequence[tuple[str, float]]
) -> Element:
    most = max(value for _, value in among)
    rows = [
        (E("code", node), f"{value:.1f} dB", bars.level_bar(value, most, f"{node}: {value:.1f} dB"))
        for node, value in ranked
    ]
    return variant_table.listed(caption, ("Layer", "#SQNR", ""), rows)


def data(card: Card) -> Iterable[Element]:
    yield E("h2", "Data that judged it")
    samples = card.samples
    if samples is None:
        yield E("p", "None: this version was registered without samples.")
        return
    facts: dict[str, Content] = {"sha256 of the samples": E("span", E("code", samples.sha256), " (the file as sent)")}
    facts["size"] = units.size(samples.size_bytes)
    if samples.count is not None:
        facts["samples"] = f"{samples.count:,}"
    if samples.calibration is not None:
        facts["used to calibrate"] = f"{samples.calibration:,} (they judge nothing)"
    if samples.validation is not None:
        facts["used to judge"] = f"{samples.validation:,} (nothing was calibrated on them)"
    yield _facts(facts)
    calibrated = [item for item in card.tried if item.evidence.calibration]
    rows = [(E("code", item.variant.id), E("code", making.passes(item.evidence.calibration))) for item in calibrated]
    if rows:
        yield variant_table.listed(
            "Passes that saw the calibration samples, and their options", ("Variant", "Passes"), rows
        )


def plans(card: Card) -> Iterable[Element]:
    known = [(item.variant.id, item.variant.plan) for item in card.tried if item.variant.plan is not None]
    if not known:
        return
    yield E("h2", "How each is run here")
    rows = []
    for variant, plan in known:
        facts: dict[str, Any] = msgspec.to_builtins(plan)
        reason = facts.pop("reason", "")
        for said_elsewhere in ("curve", "objective"):
            facts.pop(said_elsewhere, None)
        told = ", ".join(f"{key} {_told(value)}" for key, value in facts.items() if value not in ("", [], ()))
        rows.append((E("code", variant), told.replace("_", " "), reason or units.NONE))
    yield variant_table.listed("Plan of every variant that was built, and why", ("Variant", "Plan", "Reason"), rows)
    for number, (variant, plan) in enumerate(known):
        if plan.curve:
            yield E("h3", "Settings of ", E("code", variant))
            yield from curve.figure(variant, plan, number)


def _told(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def origins(card: Card) -> Iterable[Element]:
    version = card.version
    yield E("h2", "The model, the machine, the tools")
    facts: dict[str, Content] = {
        "sha256 of the model": E("span", E("code", version.model), " (as kept: one canonical file)")
    }
    facts["operators"] = ", ".join(f"{kind} {number}" for kind, number in sorted(version.operators.items()))
    for direction, specs in (("inputs", version.signature.inputs), ("outputs", version.signature.outputs)):
        shapes = (f"{spec.name}: {spec.datatype} [{', '.join(map(_axis, spec.shape))}]" for spec in specs)
        facts[direction] = E("code", "; ".join(shapes))
    if version.policy:
        facts["policy"] = E("code", msgspec.json.encode(version.policy, order="sorted").decode())
    for number, hardware in enumerate(card.hardware):
        facts["measured on" if not number else f"and on ({number + 1})"] = "; ".join(hardware)
    for number, versions in enumerate(card.tool_versions):
        facts["with" if not number else f"and with ({number + 1})"] = ", ".join(versions)
    yield _facts(facts)


def _axis(size: int) -> str:
    return "?" if size < 0 else str(size)


def _facts(facts: Mapping[str, Content]) -> Element:
    listed = E("dl")
    for name, value in facts.items():
        add(listed, E("dt", name), E("dd", value))
    return listed


ALL: tuple[Callable[[Card], Iterable[Element]], ...] = (
    answer, pareto, tried, making.recipes, making.arithmetic, making.regions, making.sizes, sensitivity, data, plans,
    origins, repeating.section,
)  # fmt: skip

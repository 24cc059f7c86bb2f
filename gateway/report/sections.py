"""The sections of the page, in order; each makes its elements from the card, or none where there is nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

import msgspec

from gateway.report import bars, curve, plot, repeating, units, variant_table
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
            f"{units.times(timing.speedup_upper)}), {units.seconds(timing.p50_s)} against "
            f"{units.seconds(timing.reference_p50_s)} (median of {timing.runs} runs each, in turns)"
        )
    return told


def pareto(card: Card) -> Iterable[Element]:
    yield E("h2", "Accuracy against latency")
    if not card.plots:
        yield E("p", "There is nothing to draw yet: no variant was both compared with the reference and timed.")
        return
    for drawn in card.plots:
        caption = E(
            "figcaption",
            f"{units.rows(drawn.rows)}: discs serve, rings are right but no faster, diamonds are unproven, crosses "
            "are wrong; the circled one answers these batches. Bars: 95 % interval. Stairs: what nothing beats.",
        )
        yield E("figure", variant_table.wide(plot.draw(drawn), plot.title(drawn)), caption)
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


def arithmetic(card: Card) -> Iterable[Element]:
    """What share of the multiply-accumulates runs at which precision."""
    known = [item for item in card.tried if item.evidence.precision_share]
    if not known:
        return
    yield E("h2", "Arithmetic by precision")
    if card.macs is not None:
        words = f"The model as uploaded makes {units.count(card.macs, 'MAC')} (multiply-accumulates) per row."
        yield E("p", words)
    rows = [
        (
            E("code", item.variant.id),
            units.count(item.evidence.macs, "MAC"),
            bars.share_words(item.evidence.precision_share),
            bars.share_bar(item.evidence.precision_share, item.variant.id),
        )
        for item in known
    ]
    yield _table("Share of the multiply-accumulates at each precision", ("Variant", "#Per row", "Precision", ""), rows)


def regions(card: Card) -> Iterable[Element]:
    """Whether static int8 stays in int8 between products, or converts forth and back."""
    known = [item for item in card.tried if item.evidence.regions.get("nodes")]
    if not known:
        return
    yield E("h3", "Regions of int8")
    rows = []
    for item in known:
        found = item.evidence.regions
        kernels = ", ".join(f"{kind} {number}" for kind, number in found["integer"].items()) or "none"
        stray = f"{found['stray']} ({units.percent(found['stray'] / found['nodes'])})"
        rows.append((E("code", item.variant.id), str(found["nodes"]), stray, kernels))
    caption = (
        "The graph as ONNX Runtime runs it. Conversions: QuantizeLinear and DequantizeLinear left between kernels; "
        "each costs time at every run, and below a tenth of the nodes they are few."
    )
    yield _table(caption, ("Variant", "#Nodes", "#Conversions left", "Integer kernels"), rows)


def sizes(card: Card) -> Iterable[Element]:
    yield E("h2", "Size")
    whole = card.version.size_bytes
    rows: list[Sequence[Content]] = [
        (E("code", "as uploaded"), units.count(card.version.parameters), units.size(whole), "1.00x",
         units.size(card.model_stored_bytes), _ratio(whole, card.model_stored_bytes), _memory(card, REFERENCE))
    ]  # fmt: skip
    for item in card.tried:
        if item.variant.artifact is not None and item.variant.id != REFERENCE:
            size = item.variant.artifact.size_bytes
            rows.append(
                (E("code", item.variant.id), units.count(item.variant.parameters), units.size(size),
                 _ratio(whole, size), units.size(item.stored_bytes), _ratio(whole, item.stored_bytes),
                 _memory(card, item.variant.id))
            )  # fmt: skip
    columns = ("Variant", "#Weights", "#Bytes", "#Smaller by", "#Stored", "#Smaller by", "#Peak memory")
    caption = (
        "Bytes: the files as a runtime opens them. Stored: what they take on disk now, packed where that pays. Peak "
        "memory: of the process that timed it, its runtime included."
    )
    yield _table(caption, columns, rows)


def _memory(card: Card, variant: str) -> str:
    return units.size(
        next((item.evidence.peak_memory_bytes for item in card.tried if item.variant.id == variant), None)
    )


def _ratio(whole: int, part: int | None) -> str:
    return units.NONE if not part else f"{whole / part:.2f}x"


def sensitivity(card: Card) -> Iterable[Element]:
    known = [item for item in card.tried if item.evidence.sensitivity]
    yield E("h2", "Sensitivity by layer")
    if not known:
        words = "Not ranked: layers are, where a search looks for those that have to stay in float."
        yield E("p", words, class_="soft")
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


def _sensitivity_table(
    caption: str, ranked: Sequence[tuple[str, float]], among: Sequence[tuple[str, float]]
) -> Element:
    most = max(value for _, value in among)
    rows = [
        (E("code", node), f"{value:.1f} dB", bars.level_bar(value, most, f"{node}: {value:.1f} dB"))
        for node, value in ranked
    ]
    return _table(caption, ("Layer", "#SQNR", ""), rows)


def data(card: Card) -> Iterable[Element]:
    yield E("h2", "Data that judged it")
    samples = card.samples
    if samples is None:
        yield E("p", "None: this version was registered without samples.")
        return
    facts: dict[str, Content] = {"sha256 of the samples": E("code", samples.sha256)}
    facts["size"] = units.size(samples.size_bytes)
    if samples.count is not None:
        facts["samples"] = f"{samples.count:,}"
    if samples.calibration is not None:
        facts["used to calibrate"] = f"{samples.calibration:,} (they judge nothing)"
    if samples.validation is not None:
        facts["used to judge"] = f"{samples.validation:,} (nothing was calibrated on them)"
    yield _facts(facts)
    calibrated = [item for item in card.tried if item.evidence.calibration]
    rows = [(E("code", item.variant.id), E("code", _passes(item.evidence.calibration))) for item in calibrated]
    if rows:
        yield _table("Passes that saw the calibration samples, and their options", ("Variant", "Passes"), rows)


def _passes(made: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{spec['name']} {msgspec.json.encode(spec['params']).decode() if spec['params'] else ''}".rstrip()
        for spec in made.get("passes", ())
    )


def recipes(card: Card) -> Iterable[Element]:
    known = [item for item in card.tried if item.evidence.recipe]
    if not known:
        return
    yield E("h2", "How each was made")
    rows = []
    for item in known:
        found = {key: value for key, value in item.evidence.recipe.items() if key != "passes"}
        told = msgspec.json.encode(found).decode() if found else units.NONE
        rows.append((E("code", item.variant.id), E("code", _passes(item.evidence.recipe)), E("code", told)))
    columns = ("Variant", "Passes, in order", "Found by the search")
    yield _table("Passes with the parameters that differ from their defaults", columns, rows)


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
    yield _table("Plan of every variant that was built, and why", ("Variant", "Plan", "Reason"), rows)
    for number, (variant, plan) in enumerate(known):
        if plan.curve:
            yield E("h3", "Settings of ", E("code", variant))
            yield from curve.figure(variant, plan, number)


def _told(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def origins(card: Card) -> Iterable[Element]:
    version = card.version
    yield E("h2", "The model, the machine, the tools")
    facts: dict[str, Content] = {"sha256 of the model": E("code", version.model)}
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


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Content]]) -> Element:
    return variant_table.wide(variant_table.plain(caption, columns, rows), caption)


ALL: tuple[Callable[[Card], Iterable[Element]], ...] = (
    answer, pareto, tried, recipes, arithmetic, regions, sizes, sensitivity, data, plans, origins, repeating.section,
)  # fmt: skip

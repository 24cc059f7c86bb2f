"""How each variant was made, as sections of the page: passes, arithmetic by precision, regions of int8, sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

import msgspec

from gateway.report import bars, units, variant_table
from gateway.report.card import Card
from gateway.report.markup import Content, E
from model_store.entities import REFERENCE


def recipes(card: Card) -> Iterable[Element]:
    known = [item for item in card.tried if item.evidence.recipe]
    if not known:
        return
    yield E("h2", "How each was made")
    rows = []
    for item in known:
        recipe, built = item.evidence.recipe, item.variant.artifact
        found = f"{recipe['base']} with {_options(recipe.get('choice', {}))}" if "base" in recipe else units.NONE
        options = units.NONE if built is None else _options(built.options)
        rows.append((E("code", item.variant.id), E("code", passes(recipe)), E("code", options), E("code", found)))
    columns = ("Variant", "Passes, in order", "Told to the runtime", "Found by the search")
    yield variant_table.listed("Passes with the parameters that differ from their defaults", columns, rows)


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
    yield variant_table.listed(
        "Share of the multiply-accumulates at each precision", ("Variant", "#Per row", "Precision", ""), rows
    )


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
    yield variant_table.listed(caption, ("Variant", "#Nodes", "#Conversions left", "Integer kernels"), rows)


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
    yield variant_table.listed(caption, columns, rows)


def _memory(card: Card, variant: str) -> str:
    return units.size(
        next((item.evidence.peak_memory_bytes for item in card.tried if item.variant.id == variant), None)
    )


def _ratio(whole: int, part: int | None) -> str:
    return units.NONE if not part else f"{whole / part:.2f}x"


def _options(made: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_plainly(value)}" for key, value in made.items()) or units.NONE


def _plainly(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def passes(made: Mapping[str, Any]) -> str:
    """Passes in order, each with its parameters."""
    return "; ".join(
        f"{spec['name']} {msgspec.json.encode(spec['params']).decode() if spec['params'] else ''}".rstrip()
        for spec in made.get("passes", ())
    )

"""Tables: the one of all variants, and the plain kind the other sections use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from gateway.report import units
from gateway.report.card import Tried
from gateway.report.markup import Content, E, add
from model_store.entities import REFERENCE, Agreement, Timing

_WORDS = {
    "sqnr_db": "signal-to-noise ratio at least {:g} dB",
    "cosine": "cosine at least {:g} in the worst hundredth",
    "top1": "top-1 agreement at least {:g} by the lower 95 % bound",
    "max_drop": "label accuracy at most {:g} lower",
    "metric_least": "the policy's own metric at least {:g}",
    "metric_most": "the policy's own metric at most {:g}",
}


def plain(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Content]]) -> Element:
    """A table whose first column names its rows; a column whose title begins with # holds figures."""
    head = E("tr", *(_cell("th", name.lstrip("#"), name.startswith("#"), "col") for name in columns))
    body = E("tbody", *(_cells(columns, row) for row in rows))
    return E("table", E("caption", E("span", caption)), E("thead", head), body)


def wide(content: Element, words: str) -> Element:
    """A pane that scrolls where the screen is narrower than `content`, with the keyboard, too."""
    return E("div", content, class_="wide", tabindex="0", role="region", aria_label=words)


def listed(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Content]]) -> Element:
    """A plain table that scrolls by itself."""
    return wide(plain(caption, columns, rows), caption)


def _cells(columns: Sequence[str], row: Sequence[Content]) -> Element:
    made = E("tr")
    for index, (column, content) in enumerate(zip(columns, row, strict=True)):
        add(made, _cell("td" if index else "th", content, column.startswith("#"), None if index else "row"))
    return made


def _cell(tag: str, content: Content, number: bool, scope: str | None) -> Element:
    return E(tag, content, class_="number" if number else None, scope=scope)


def table(tried: Sequence[Tried]) -> Element:
    """Every variant: a line of figures for every batch size measured, and below it the reason in words."""
    columns = ("Variant", "Verdict", "#Rows", "#Median", "#99th percentile", "#Speed-up", "#SQNR", "#Cosine", "#Top-1")
    caption = (
        "Speed-up: over the reference, measured in turns with it; in brackets the 95 % interval. SQNR (signal-to-noise "
        "ratio), cosine (worst hundredth), top-1: agreement with the reference on samples that calibrated nothing."
    )
    drawn = plain(caption, columns, ())
    drawn.remove(drawn[-1])
    for item in tried:
        told = item.variant.reason
        if item.evidence.agreement is not None and (own := _own_figures(item.evidence.agreement)):
            told = f"{told}. {own}" if told else own
        reason = E("td", E("div", told), class_="reason", colspan=len(columns))
        add(drawn, E("tbody", _cells(columns, _row(item)), E("tr", reason), class_="variant"))
    return drawn


def _row(item: Tried) -> Sequence[Content]:
    variant, evidence = item.variant, item.evidence
    sqnr, cosine, top1 = _agreement(evidence.agreement)
    name = E("span", E("code", variant.id))
    if item.answers:
        add(name, E("br"), E("span", f"answers {_answered(item.answers)}", class_="soft"))
    reference = variant.id == REFERENCE
    return (
        name,
        E("span", str(variant.verdict), class_=str(variant.verdict)),
        _lines(str(timing.rows) for timing in evidence.timings),
        _lines(units.seconds(timing.p50_s) for timing in evidence.timings),
        _lines(units.seconds(timing.p99_s) for timing in evidence.timings),
        units.NONE if reference else _lines(_speedup(timing) for timing in evidence.timings),
        sqnr,
        cosine,
        top1,
    )


def _answered(rows: Sequence[int]) -> str:
    return f"{'/'.join(map(str, rows))} row" + "s" * (tuple(rows) != (1,))


def _speedup(timing: Timing) -> str:
    ends = (units.times(timing.speedup_lower), units.times(timing.speedup_upper, up=True))
    return f"{units.times(timing.speedup)} [{', '.join(end.rstrip('x') for end in ends)}]"


def _agreement(agreement: Agreement | None) -> tuple[str, str, str]:
    if agreement is None:
        return units.NONE, units.NONE, units.NONE
    top1 = units.NONE
    if agreement.top1 is not None:
        top1 = units.percent(agreement.top1)
        if agreement.top1_lower is not None:
            top1 += f" (≥ {units.percent(agreement.top1_lower)})"
    sqnr = "bit-equal" if agreement.sqnr_db >= 200 else f"{agreement.sqnr_db:.1f} dB"
    return sqnr, f"{agreement.cosine_p1:.6g}", top1


def _own_figures(agreement: Agreement) -> str:
    """What the owner's labels and expression say, where the samples carry labels and the policy has an expression."""
    told = []
    if agreement.label_accuracy is not None:
        held = units.percent(agreement.reference_label_accuracy)
        told.append(f"Label accuracy {units.percent(agreement.label_accuracy)}, of the reference {held}")
        if agreement.label_drop_upper is not None:
            told[-1] += f" (lower by at most {units.percent(max(0.0, agreement.label_drop_upper))}, 95 % bound)"
    if agreement.metric is not None:
        told.append(f"The policy's own metric {agreement.metric:.6g}")
        if agreement.metric_lower is not None and agreement.metric_upper is not None:
            told[-1] += f" [{agreement.metric_lower:.6g}, {agreement.metric_upper:.6g}]"
    return ". ".join((*told, "")).rstrip()


def _lines(texts: Iterable[str]) -> Element:
    cell = E("span")
    for index, text in enumerate(texts):
        if index:
            add(cell, E("br"))
        add(cell, text)
    return cell if len(cell) or cell.text else E("span", units.NONE)


def gates(tried: Sequence[Tried]) -> Iterable[Element]:
    """What was asked of whom, in words."""
    asked: dict[tuple[tuple[str, float], ...], list[str]] = {}
    for item in tried:
        if item.evidence.gate:
            asked.setdefault(tuple(sorted(item.evidence.gate.items())), []).append(item.variant.id)
    for bounds, ids in asked.items():
        told = "; ".join(_WORDS.get(key, key + " {:g}").format(value) for key, value in bounds)
        yield E("p", f"Gate of {', '.join(ids)}: {told}.", class_="soft")

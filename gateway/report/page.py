"""The card as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

Reads top down as the questions come: what answers, why may it, what else was tried, what was done to the model, on
what data and which machine, and how to do it all again.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from gateway.report import sections
from gateway.report.card import Card
from gateway.report.markup import E, add, document
from gateway.report.style import POLICY, STYLE
from gateway.report.units import moment
from model_store.entities import VersionStatus


def page(card: Card) -> bytes:
    """UTF-8. Everything that came from outside (names, texts of a model) is text in it, never markup."""
    version = card.version
    title = f"{version.name} version {version.version}: proof card"
    head = E(
        "head", E("meta", charset="utf-8"),
        E("meta", http_equiv="Content-Security-Policy", content=POLICY),
        E("meta", name="viewport", content="width=device-width, initial-scale=1"),
        E("meta", name="color-scheme", content="light dark"),
        E("title", title), E("style", STYLE),
    )  # fmt: skip
    main = E("main", _heading(card))
    for section in sections.ALL:
        for element in section(card):
            add(main, element)
    footer = E("p", f"Made {moment(card.made_at)} by forgeway {card.forgeway}.", class_="soft")
    return document(E("html", head, E("body", main, E("footer", footer)), lang="en"))


def _heading(card: Card) -> Element:
    version = card.version
    told = [f"registered {moment(version.created_at)}", f"status: {version.status}"]
    if card.aliases:
        told.append(f"aliases: {', '.join(card.aliases)}")
    header = E("header", E("h1", f"{version.name} version {version.version}"), E("p", "; ".join(told), class_="soft"))
    if version.status is VersionStatus.FAILED:
        add(header, E("p", f"This version failed: {version.reason}", class_="notice"))
    elif card.open_jobs:
        kinds = ", ".join(f"{job.target} ({job.state})" for job in card.open_jobs)
        words = f"Still compiling: {kinds}. What stands here is what is known so far; look again when it is ready."
        add(header, E("p", words, class_="notice"))
    if card.samples is None:
        words = (
            "No samples were registered with this version: only what computes the same as the uploaded model could be "
            "proven right (on made-up inputs); register it with samples and every variant is judged on them."
        )
        add(header, E("p", words, class_="notice"))
    return header

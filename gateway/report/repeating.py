"""How to do it all again: the commands that register and look, and the script beside every artifact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import msgspec

from gateway.report.card import Card
from gateway.report.markup import E


@dataclass(frozen=True, slots=True)
class Command:
    what: str
    line: str


def commands(card: Card) -> tuple[Command, ...]:
    """Shell commands; the files are the owner's own, named as placeholders."""
    version = card.version
    samples = " --samples samples.npz" if card.samples is not None else ""
    policy = " --policy policy.json" if version.policy else ""
    found = [
        Command("register and compile it anew", f"forgeway register {version.name} model.onnx{samples}{policy} --wait"),
        Command("compile this version again", f"forgeway compile {version.name} --version {version.version} --wait"),
        Command("this card", f"forgeway report {version.name} --version {version.version} --out card.html"),
        Command("the reference against what is routed, timed through the gateway", f"forgeway bench {version.name}"),
    ]
    if any(item.script is not None for item in card.tried):
        found.append(
            Command(
                "the steps of one variant, with its script below saved as reproduce.sh, where forgeway is installed "
                "and DATA_FOLDER is the gateway's",
                "sh reproduce.sh DATA_FOLDER WORK_FOLDER",
            )
        )
    return tuple(found)


def section(card: Card) -> Iterable[Element]:
    yield E("h2", "How to repeat it")
    for command in commands(card):
        yield E("p", f"{command.what}: ", E("code", command.line))
    if card.version.policy:
        text = msgspec.json.format(msgspec.json.encode(card.version.policy, order="sorted"), indent=2).decode()
        yield E("details", E("summary", "policy.json"), E("pre", text))
    for item in card.tried:
        if item.script is None:
            continue
        if item.script.text is None:
            yield E("p", f"{item.variant.id}: its script is blob ", E("code", item.script.sha256), ".")
        else:
            summary = E("summary", "reproduce.sh of ", E("code", item.variant.id))
            yield E("details", summary, E("pre", item.script.text))

"""The proof card as a page: everything a version can be in, in words; nothing from a model becomes markup."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from gateway.report import HEADERS, card_view, gather, page, units
from gateway.report.bars import share_words
from gateway.report.markup import E, document
from gateway.report.style import STYLE
from model_store.entities import Artifact, JobState, Verdict, VersionStatus
from model_store.policy import Policy
from model_store.store import ModelStore
from tests.rows import EVERY_KIND, EVIDENCE, publish_reference, register, variant

HOSTILE = "<script>alert(1)</script>&\"'\x00\x1b[31m"


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore.open(tmp_path / "data")


def compiled(store: ModelStore, **evidence: object) -> None:
    """Version 1 of `digits` with its reference and, built, one variant that serves, one rejected, one not proven."""
    version, _ = register(store.catalog)
    publish_reference(store.catalog)
    script = store.blobs.put_bytes(b"#!/bin/sh\npython -m compilers.steps transform\n")
    model = store.blobs.put_bytes(b"weights" * 100)
    for target, names in (("ort-cpu", ("int8", "graph")), ("openvino-cpu", ("bf16",))):
        job = store.catalog.claim("w", EVERY_KIND, 60.0)
        assert job is not None and job.target == target
        for name in names:
            verdict = {"int8": Verdict.SERVING, "graph": Verdict.REJECTED, "bf16": Verdict.INCONCLUSIVE}[name]
            made = variant(version, f"{target}.{name}", verdict)
            if made.artifact is not None:
                made = replace(
                    made, artifact=Artifact({"model.onnx": model, "reproduce.sh": script}, {"precision": "f32"}, 77)
                )
            store.catalog.publish(job, replace(made, evidence=replace(EVIDENCE, **evidence), reason=HOSTILE))
        store.catalog.finish(job, JobState.SUCCEEDED)


class Strict(HTMLParser):
    """Every element in order, and whether each one that needs it was closed."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def drawn(store: ModelStore) -> str:
    return page(gather(store, "digits", "1")).decode()


def test_a_compiled_version_shows_what_answers_and_everything_tried(store: ModelStore) -> None:
    compiled(
        store,
        gate={"sqnr_db": 20.0, "cosine": 0.985},
        macs=4_089_000_000,
        precision_share={"int8": 0.991, "f32": 0.009},
        sensitivity={f"/layer/{n}": 20.0 + n for n in range(30)},
        regions={"nodes": 200, "integer": {"QLinearConv": 53}, "stray": 12},
        recipe={
            "passes": [{"name": "smooth-quant", "params": {"alpha": 0.6}}],
            "base": "int8",
            "choice": {"alpha": 0.6},
        },
        calibration={"count": 700, "calibration": 210, "validation": 490, "passes": [{"name": "int8", "params": {}}]},
    )
    html = drawn(store)
    for words in (
        "digits version 1", "ort-cpu.int8", "2.00x", "1.90x to 2.10x", "signal-to-noise ratio at least 20 dB",
        "Dashed: the gate, 20 dB of ", "at 1 row: ort-cpu.int8 answers.", "precision f32", "(the file as sent)",
        "4.09 GMAC", "int8 99.1 %, f32 0.9 %", "all 30 layers", "210 (they judge nothing)",
        "python -m compilers.steps transform", 'smooth-quant {"alpha":0.6}', "int8 with alpha 0.6",
        "openvino-cpu.bf16", "700 B", "12 (6.0 %)", "QLinearConv 53", "1.0 MiB",
    ):  # fmt: skip
        assert words in html, words
    assert "Still compiling" not in html
    shown = Strict(html)
    described = [attributes["aria-labelledby"] for attributes in shown.all("svg") if "aria-labelledby" in attributes]
    assert described == ["plot-1-title plot-1-desc"]
    assert "ort-cpu.int8 takes 50.0 % of the reference" in html and "the gate asks 20 dB" in html


def test_nothing_a_model_says_becomes_markup(store: ModelStore) -> None:
    compiled(store, sensitivity={HOSTILE: 3.0}, hardware={"cpu": HOSTILE}, precision_share={HOSTILE: 1.0})
    html = drawn(store)
    assert "alert(1)" in html
    assert "\x00" not in html and "\x1b" not in html
    assert {tag for tag, _ in Strict(html).tags} <= {
        "html", "head", "meta", "title", "style", "body", "main", "header", "footer", "h1", "h2", "h3", "p", "div",
        "span", "strong", "code", "pre", "br", "table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt",
        "dd", "figure", "figcaption", "details", "summary", "svg", "desc", "g", "line", "text", "tspan", "circle",
        "rect", "path", "polyline", "ul", "li",
    }  # fmt: skip


def test_the_page_asks_for_nothing_and_may_run_nothing(store: ModelStore) -> None:
    compiled(store)
    html = drawn(store)
    shown = Strict(html)
    for _, attributes in shown.tags:
        assert not {"src", "href", "style", "onclick", "onload"} & set(attributes)
    assert "url(" not in STYLE and "@import" not in STYLE
    style = re.search("<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'; ") and f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    inside = next(meta["content"] for meta in shown.all("meta") if meta.get("http-equiv"))
    assert inside is not None and policy.startswith(inside)


def test_tables_and_pictures_can_be_heard(store: ModelStore) -> None:
    compiled(store, precision_share={"f32": 1.0})
    shown = Strict(drawn(store))
    assert all(attributes.get("scope") in ("col", "row") for attributes in shown.all("th"))
    assert len(shown.all("caption")) == len(shown.all("table")) >= 3
    for svg in shown.all("svg"):
        named = svg.get("aria-label") or svg.get("aria-labelledby")
        assert (svg.get("role") == "img" and named) or svg.get("aria-hidden") == "true"


def test_a_version_that_still_compiles_says_so(store: ModelStore) -> None:
    register(store.catalog)
    html = drawn(store)
    assert "Still compiling: ort-cpu (queued)" in html and "No variant has been judged yet" in html
    publish_reference(store.catalog)
    html = drawn(store)
    assert "the uploaded model itself: nothing was proven right and faster here" in html
    assert card_view(gather(store, "digits", "1"))["complete"] is False


def test_a_version_without_samples_says_what_that_means(store: ModelStore) -> None:
    compiled(store)
    card = gather(store, "digits", "1")
    without = replace(card, version=replace(card.version, samples=None), samples=None)
    html = page(without).decode()
    assert "No samples were registered" in html and "None: this version was registered without samples." in html
    assert card_view(without)["samples"] is None


def test_a_failed_version_says_why(store: ModelStore) -> None:
    compiled(store)
    card = gather(store, "digits", "1")
    failed = replace(card, version=replace(card.version, status=VersionStatus.FAILED, reason="it <b>does</b> not run"))
    assert "This version failed: it &lt;b&gt;does&lt;/b&gt; not run" in page(failed).decode()


def test_where_no_layer_was_ranked_the_page_says_why(store: ModelStore) -> None:
    compiled(store)
    card = gather(store, "digits", "1")
    unsearched = Policy.model_validate({"search": {"effort": "off"}})
    for other, why in (
        (card, "no variant calibrated for int8 is faster or failed"),
        (replace(card, policy=unsearched), "the policy has the search switched off"),
        (replace(card, samples=None), "that takes samples"),
    ):
        assert f"Not ranked: {why}" in page(other).decode()
    register(store.catalog)
    assert "Not ranked so far" in page(gather(store, "digits", "2")).decode()


def test_a_little_of_another_precision_is_not_told_as_none() -> None:
    assert share_words({"f32": 2e-5, "int8": 1 - 2e-5}) == "int8 over 99.9 %, f32 below 0.1 %"
    assert share_words({"int8": 1.0}) == "int8 100.0 %"


def test_ratios_claim_no_more_than_was_measured() -> None:
    assert (units.times(1.999), units.times(2.0), units.times(0.978)) == ("1.99x", "2.00x", "0.97x")
    assert (units.times(1.0512, up=True), units.times(1.05, up=True), units.times(None)) == ("1.06x", "1.05x", "-")


def test_the_json_holds_the_same_facts_and_survives_json(store: ModelStore) -> None:
    compiled(store, gate={"sqnr_db": 20.0})
    view = json.loads(msgspec.json.encode(card_view(gather(store, "digits", "1"))))
    assert view["complete"] is True
    (chosen,) = view["chosen"]
    assert (chosen["rows"], chosen["variant"], chosen["speedup"]) == (1, "ort-cpu.int8", 2.0)
    assert chosen["timing"] == json.loads(msgspec.json.encode(EVIDENCE.timings[0])), "the interval, too"
    (plot,) = view["pareto"]
    assert (plot["rows"], plot["accuracy"]) == (1, "sqnr_db")
    assert plot["gates"][0]["accuracy"] == 20.0
    tried = {item["id"]: item for item in view["variants"]}
    assert tried["ort-cpu.int8"]["stored_bytes"] == 700
    assert tried["ort-cpu.int8"]["reproduce"]["text"].startswith("#!/bin/sh")
    assert tried["ort-cpu.int8"]["times_smaller"] == round(1234 / 77, 4)
    assert tried["ort-cpu.graph"]["stored_bytes"] is None
    assert "forgeway compile digits --version 1 --wait" in {command["line"] for command in view["commands"]}


def test_bytes_that_are_gone_do_not_stop_the_card(store: ModelStore) -> None:
    compiled(store)
    for digest in list(store.blobs.digests()):
        store.blobs.delete(digest)
    card = gather(store, "digits", "1")
    assert card_view(card)["model"]["stored_bytes"] is None
    assert "its script is blob" in page(card).decode()


def test_every_objective_has_its_words(store: ModelStore) -> None:
    compiled(store)
    card = gather(store, "digits", "1")
    for objective in ("latency", "throughput", "size"):
        assert f"Objective: {objective}" in page(replace(card, policy=Policy(objective=objective))).decode()


def test_markup_escapes_text_and_attributes_alike() -> None:
    made = document(E("p", "a < b & c", E("br"), "d\ud800", title='"><script>'))
    assert made == b'<!DOCTYPE html>\n<p title="&quot;&gt;<script&gt;">a &lt; b &amp; c<br>d\xef\xbf\xbd</p>\n'
    assert ElementTree.tostring(E("p", 1.5, None, 2), encoding="unicode") == "<p>1.52</p>"

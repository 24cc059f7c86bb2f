"""Which variant answers: ranking by evidence, hysteresis, and the explanation in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import BadRequest, NotFound, NotReady
from gateway.routing.explain import explain
from gateway.routing.health import Health, Subject
from gateway.routing.latency import Latency
from gateway.routing.ranking import VersionRoute, nearest, rank
from gateway.routing.router import ModelRoutes, RouteTable
from model_store.entities import Signature, TensorSpec, Verdict
from tests.gateway.engines import variant

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),))


class OpenSession:
    ready, closed, target = True, False, "ort-cpu"

    def __init__(self):
        self.live = Latency()
        self.live.start(0.001)


def route(*variants, before=None, serve_unproven=False, sessions=None) -> VersionRoute:
    every = {v.id: v for v in (variant("m"), *variants)}
    buckets, ranked = rank(every.values(), serve_unproven, before)
    made = VersionRoute("m", "1", SIGNATURE, every, buckets, ranked, serve_unproven)
    return made.opened(sessions or {name: OpenSession() for name in every})


def table(made: VersionRoute, health: Health | None = None) -> RouteTable:
    models = {"m": ModelRoutes({"1": made}, {"champion": "1"}, "1", {"2": "its reference is being opened"})}
    return RouteTable(models, 7, health or Health())


def usable(name, session):
    return session.ready


def test_the_fastest_proven_variant_of_each_bucket_answers():
    made = route(variant("m", "int8", {1: 0.7, 8: 3.0}), variant("m", "f32", {1: 1.2, 8: 1.1}))
    assert made.buckets == (1, 8)
    assert made.ranked[1] == ("f32", "reference", "int8")  # what is not proven here stands behind the reference
    assert made.ranked[8] == ("int8", "f32", "reference")
    assert made.wanted == ("reference", "f32", "int8")
    assert made.pick(1, usable).variant == "f32"
    assert made.pick(16, usable).variant == "int8"


def test_a_variant_answers_only_the_rows_it_is_proven_faster_for():
    shaky = variant("m", "shaky", {1: 1.3, 8: 3.0})
    first, second = shaky.evidence.timings
    timings = (replace(first, speedup_lower=0.9), second)
    made = route(replace(shaky, evidence=replace(shaky.evidence, timings=timings)))
    assert made.ranked == {1: ("reference", "shaky"), 8: ("shaky", "reference")}
    assert "no variant is proven faster" in explain(made, Health(), 1)["why"]


@pytest.mark.parametrize(
    ("objective", "best"), [("latency", "quick"), ("throughput", "wide"), ("size", "small"), ("memory", "lean")]
)
def test_the_objective_decides_among_what_is_proven(objective, best):
    sizes = {"quick": 200, "wide": 300, "small": 20, "lean": 250, "tiny-but-slow": 10}
    speeds = {
        "quick": (3.0, 2.0), "wide": (2.0, 4.0), "small": (1.5, 1.5), "lean": (1.6, 1.6), "tiny-but-slow": (0.5, 0.5),
    }  # fmt: skip
    able = [variant("m")]
    for name, (one, eight) in speeds.items():
        made = replace(variant("m", name, {1: one, 8: eight}), size_bytes=sizes[name])
        evidence = replace(made.evidence, peak_memory_bytes=100 if name in ("lean", "tiny-but-slow") else 1000)
        able.append(replace(made, evidence=evidence))
    assert rank(able, False, None, objective)[1][1][0] == best


@pytest.mark.parametrize(("rows", "bucket"), [(0, 1), (1, 1), (2, 1), (3, 8), (15, 8), (17, 32), (500, 32)])
def test_rows_fall_into_the_bucket_nearest_by_ratio(rows, bucket):
    assert nearest((1, 8, 32), rows) == bucket


@pytest.mark.parametrize("verdict", [Verdict.ELIGIBLE, Verdict.INCONCLUSIVE, Verdict.REJECTED])
def test_what_is_not_proven_is_not_routed_to(verdict):
    made = route(variant("m", "int8", {1: 9.0}, verdict))
    assert made.ranked == {1: ("reference",)}
    assert made.wanted == ("reference",)


def test_an_unproven_variant_serves_when_the_policy_says_so():
    assert route(variant("m", "int8", {1: 9.0}, Verdict.INCONCLUSIVE), serve_unproven=True).wanted[1] == "int8"


def test_the_incumbent_stays_unless_another_is_more_than_three_per_cent_faster():
    first = route(variant("m", "a", {1: 2.0}))
    assert route(variant("m", "a", {1: 2.0}), variant("m", "b", {1: 2.05}), before=first).ranked[1][0] == "a"
    assert route(variant("m", "a", {1: 2.0}), variant("m", "b", {1: 2.07}), before=first).ranked[1][0] == "b"
    assert route(variant("m", "a", {1: 1.02})).ranked[1][0] == "reference"


def test_the_next_variant_stands_in_for_one_that_is_not_open():
    class Closed(OpenSession):
        ready = False

    made = route(variant("m", "int8", {1: 3.0}), sessions={"reference": OpenSession(), "int8": Closed()})
    assert made.pick(1, usable) == ("reference", made.sessions["reference"], "fallback")


@pytest.mark.parametrize("verdict", [Verdict.ELIGIBLE, Verdict.INCONCLUSIVE, Verdict.REJECTED])
def test_what_is_not_proven_does_not_stand_in_even_for_a_reference_that_cannot_answer(verdict):
    class Closed(OpenSession):
        ready, closed = False, True

    made = route(variant("m", "int8", {1: 9.0}, verdict), sessions={"reference": Closed(), "int8": OpenSession()})
    assert made.pick(1, usable) is None
    assert made.pick(1, usable, avoid="reference") is None


def test_a_variant_to_avoid_is_waited_around_and_used_only_when_there_is_no_other():
    class Coming(OpenSession):
        ready = False

    both = route(variant("m", "int8", {1: 3.0}))
    assert both.pick(1, usable, avoid="int8").variant == "reference"
    one_coming = route(variant("m", "int8", {1: 3.0}), sessions={"reference": Coming(), "int8": OpenSession()})
    assert one_coming.pick(1, usable, avoid="int8") is None
    alone = route()
    assert alone.pick(1, usable, avoid="reference").variant == "reference"


def test_the_smallest_plan_bounds_the_batch():
    assert route(variant("m", "int8", {1: 3.0}, max_rows=16)).max_rows == 16


def test_pins_name_the_known_variants():
    made = route(variant("m", "int8", {1: 3.0}))
    made.check_pin("int8")
    with pytest.raises(BadRequest, match="no variant 'int4'; it has int8, reference"):
        made.check_pin("int4")


def test_names_versions_and_aliases_are_resolved():
    whole = table(route())
    for ref in (None, "1", "champion"):
        assert whole.resolve("m", ref).version == "1"
    with pytest.raises(NotFound, match=r"^Request for unknown model: 'n' is not found$"):
        whole.resolve("n")
    with pytest.raises(NotFound, match="'m' version 9 is not found"):
        whole.resolve("m", "9")
    with pytest.raises(NotReady, match="'m' version 2 is not at ready state: its reference is being opened"):
        whole.resolve("m", "2")


def test_a_model_without_a_version_that_answers_is_not_ready_or_not_found():
    models = {"new": ModelRoutes({}, {}, None, {"1": "it has no reference yet"}), "empty": ModelRoutes({}, {}, None)}
    with pytest.raises(NotReady, match="version 1 is not at ready state: it has no reference yet"):
        RouteTable(models).resolve("new")
    with pytest.raises(NotFound, match="'empty' has no available versions"):
        RouteTable(models).resolve("empty")


def test_the_explanation_gives_the_figures():
    facts = table(route(variant("m", "int8", {1: 0.7, 8: 3.0}), variant("m", "f32", {8: 1.1}))).explain("m", rows=8)
    assert (facts["variant"], facts["bucket"], facts["decision"]) == ("int8", 8, "fastest")
    assert facts["why"].startswith("int8 is the fastest proven variant: 3.00x the reference at 8 rows (at least 2.85x)")
    assert "cosine 0.99990 over 100 samples" in facts["why"]
    assert facts["why"].endswith("next is f32 at 1.10x")
    assert [row["variant"] for row in facts["alternatives"]] == ["reference", "int8", "f32"]
    assert [row["speedup"] for row in facts["alternatives"]] == [1.0, 3.0, 1.1]


def test_the_explanation_says_who_stands_in_for_whom():
    health = Health()
    for _ in range(2):
        health.died(Subject("m", "1", "int8"), "segv")
    facts = table(route(variant("m", "int8", {1: 3.0})), health).explain("m")
    assert facts["variant"] == "reference"
    assert "reference stands in" in facts["why"]
    assert "int8 is quarantined for 60 s more" in facts["why"]


def test_the_explanation_of_a_lonely_reference():
    lonely = table(route(variant("m", "int8", {1: 3.0}, Verdict.REJECTED))).explain("m")
    assert lonely["why"].startswith("reference is the only variant that may serve")
    assert "1 other variant may not serve" in lonely["why"]


def test_quarantine_lasts_a_minute_and_doubles_when_it_happens_again():
    now = 0.0
    health = Health(lambda: now)
    subject = Subject("m", "1", "int8")
    assert not health.died(subject, "segv")
    now = 61.0
    assert not health.died(subject, "segv"), "the first death is more than a minute ago"
    assert health.died(subject, "oom")
    now = 61.0 + 59
    assert health.quarantined(subject)
    now = 61.0 + 61
    assert not health.quarantined(subject)
    health.died(subject, "oom")
    assert health.died(subject, "oom")
    assert health.seconds_left(subject) == 120
    health.forget("m", "1")
    assert not health.quarantined(subject)

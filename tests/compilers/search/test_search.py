"""The search in a real store with a real worker: what int8 breaks is rescued, what cannot be says so, nothing twice."""

from __future__ import annotations

import math
import signal
from collections import Counter
from dataclasses import replace

import pytest

from compilers.proving.gate import DEFAULTS
from compilers.search.bisection import fewest
from compilers.search.purpose import Purpose, purpose_of, serving_speedups, speedups, together
from model_store.entities import JobState, ModelVersion, Signature, Verdict, VersionStatus
from model_store.policy import Policy
from model_store.store import ModelStore
from tests import zoo
from tests.compilers.compiling import ended, events, register, start_worker, variants, wait_until, working
from tests.rows import EVIDENCE, digest, variant

pytestmark = [pytest.mark.xdist_group("search"), pytest.mark.timeout(300)]

MODEL = zoo.outliers(layers=1, width=256)
SAMPLES = zoo.random_inputs(MODEL, 120, seed=1)
ASKED = {
    "techniques": ["int8", "prune"],
    "rows": [8],
    "budget_seconds": 100,
    "search": {"effort": "auto", "patience": 3},
    "budget_trials": 2,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    opened = ModelStore.open(tmp_path_factory.mktemp("search") / "data")
    yield opened
    opened.close()


def trials(store, jobs):
    return [event for event in events(store, jobs) if event.step == "search" and event.status == "progress"]


def ran(store, jobs):
    return Counter((e.step, e.data["subject"], e.text) for e in events(store, jobs) if e.data.get("reused") is False)


def test_int8_that_fails_for_outliers_is_rescued_though_the_search_is_killed_on_the_way(shared):
    _, jobs = register(shared, "loud", MODEL, samples=SAMPLES, **ASKED)
    worker = start_worker(shared.work.parent)
    wait_until(lambda: len(trials(shared, jobs)) >= 1, 200)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    before = len(trials(shared, jobs))
    worker = start_worker(shared.work.parent)
    try:
        assert {job.state for job in ended(shared, jobs, 250)} == {JobState.SUCCEEDED}
    finally:
        worker.kill()
        worker.wait()
    found = variants(shared, "loud")
    naive = found["ort-cpu.int8-static"]
    assert naive.verdict is Verdict.REJECTED
    assert "rescued as ort-cpu.int8-static-" in naive.reason
    rescued = found[naive.reason.rpartition("rescued as ")[2]]
    assert rescued.verdict is Verdict.SERVING
    assert rescued.evidence.agreement.samples == 84, "every validation sample, whatever its trials looked at"
    assert rescued.evidence.agreement.sqnr_db > 20
    assert rescued.evidence.recipe["base"] == "int8-static"
    assert any(spec["name"] == "smooth-quant" for spec in rescued.evidence.recipe["passes"])
    told = trials(shared, jobs)
    assert len(told) > before >= 1
    recipes = [(event.data["subject"], event.data["recipe"]) for event in told]
    assert max(Counter(recipes).values()) == 1, "no trial was repeated"
    assert max(Counter(key for key in ran(shared, jobs)).values()) == 1, "and no step of one"
    log = {event.text for event in events(shared, jobs) if event.step == "techniques"}
    assert log == {"prune: nothing to try for this model on ort-cpu"}


def test_an_identical_registration_reuses_every_trial(shared):
    if "loud" not in {model.name for model in shared.catalog.models()}:
        pytest.skip("its twin was not compiled in this run")
    _, jobs = register(shared, "twin", MODEL, samples=SAMPLES, **ASKED)
    with working(shared):
        assert {job.state for job in ended(shared, jobs)} == {JobState.SUCCEEDED}
    assert trials(shared, jobs) == []
    assert not [event for event in events(shared, jobs) if event.status == "started"]
    before, after = variants(shared, "loud"), variants(shared, "twin")
    assert before.keys() == after.keys()
    assert all(before[name].reason == after[name].reason for name in before)


def test_what_cannot_be_rescued_says_what_was_tried_and_what_serves(store):
    small = zoo.outliers(layers=1, width=16)  # int8 loses here what it costs to quantize
    asked = ASKED | {"techniques": ["int8"], "rows": [1]}
    _, jobs = register(store, "hopeless", small, samples=zoo.random_inputs(small, 120, seed=1), **asked)
    with working(store):
        ended(store, jobs, 250)
    found = variants(store, "hopeless")
    assert {variant.verdict for name, variant in found.items() if name != "reference"} == {Verdict.REJECTED}
    reason = found["ort-cpu.int8-static"].reason
    assert "the gate asks 20 dB" in reason
    assert "not rescued, the reference serves instead: 1 recipe tried, not worth it" in reason
    assert "not faster than what serves" in reason


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 50])
def test_the_fewest_nodes_that_are_enough_are_found_in_few_questions(nodes):
    for needed in range(1, nodes + 2):
        asked = []

        def ask(without, asked=asked, needed=needed):
            asked.append(without)
            return "enough" if without >= needed else "not enough"

        passed, low = fewest(nodes, ask)
        assert passed == (needed if needed <= nodes else None)
        assert low == min(needed - 1, nodes)
        assert len(asked) <= 2 * math.log2(nodes) + 2
        assert len(set(asked)) == len(asked)


def test_leaving_out_ends_where_it_is_of_no_use():
    assert fewest(50, lambda without: "no use" if without > 3 else "not enough") == (None, 2)
    assert fewest(50, lambda without: "no use") == (None, 0)
    assert fewest(0, lambda without: "enough") == (None, 0)


GOOD, POOR = (replace(EVIDENCE.agreement, samples=samples) for samples in (500, 10))
VERSION = ModelVersion(
    "m", "1", VersionStatus.READY, "", digest("m"), 1, Signature((), ()), digest("s"), {}, 1, {}, created_at=0.0
)


def timed(name, verdict, agreement, speeds):
    timings = [replace(EVIDENCE.timings[0], rows=rows, speedup=speed) for rows, speed in speeds.items()]
    evidence = replace(EVIDENCE, agreement=agreement, timings=tuple(timings))
    return replace(variant(VERSION, name, verdict), evidence=evidence)


@pytest.mark.parametrize(
    ("verdict", "agreement", "speed", "policy", "purpose"),
    [
        (Verdict.REJECTED, GOOD, None, {}, Purpose.RESCUE),
        (Verdict.REJECTED, None, None, {}, None),
        (Verdict.INCONCLUSIVE, GOOD, 2.0, {}, Purpose.RESCUE),
        (Verdict.INCONCLUSIVE, POOR, 2.0, {}, None),
        (Verdict.ELIGIBLE, GOOD, 0.7, {}, None),
        (Verdict.SERVING, GOOD, 3.0, {}, None),
        (Verdict.SERVING, GOOD, 1.2, {}, Purpose.TUNE),
        (Verdict.SERVING, GOOD, 1.2, {"objective": "size"}, None),
        (Verdict.SERVING, GOOD, 3.0, {"search": {"effort": "full"}}, Purpose.TUNE),
        (Verdict.REJECTED, GOOD, None, {"search": {"effort": "off"}}, None),
        (Verdict.REJECTED, GOOD, None, {"budget_trials": 0}, None),
    ],
)
def test_a_search_begins_only_where_it_can_pay(verdict, agreement, speed, policy, purpose):
    candidate = timed("ort-cpu.int8-static", verdict, agreement, {} if speed is None else {1: speed, 32: speed})
    decided, why = purpose_of(candidate, Policy(**policy), DEFAULTS["int8"])
    assert decided is purpose
    assert why.startswith("searching" if purpose else "no search: ")


@pytest.mark.parametrize(("samples", "purpose"), [(188, None), (189, Purpose.RESCUE)])
def test_a_rescue_that_no_recipe_could_prove_on_so_few_samples_is_not_begun(samples, purpose):
    agreement = replace(GOOD, samples=samples, top1=0.9, top1_lower=0.85)
    candidate = timed("ort-cpu.int8-static", Verdict.INCONCLUSIVE, agreement, {1: 3.0})
    decided, why = purpose_of(candidate, Policy(), DEFAULTS["int8"])
    assert decided is purpose
    assert ("too few to prove the top-1 agreement" in why) == (purpose is None)


def test_what_takes_microseconds_is_not_tuned():
    quick = timed("ort-cpu.int8-static", Verdict.SERVING, GOOD, {1: 1.2})
    timings = tuple(replace(timing, reference_p50_s=40e-6) for timing in quick.evidence.timings)
    candidate = replace(quick, evidence=replace(quick.evidence, timings=timings))
    decided, why = purpose_of(candidate, Policy(), DEFAULTS["int8"])
    assert decided is None
    assert "microseconds" in why


def test_what_must_be_beaten_is_what_serves_in_each_bucket():
    wide = timed("a", Verdict.SERVING, GOOD, {1: 0.8, 32: 4.0})
    narrow = timed("b", Verdict.SERVING, GOOD, {1: 2.0, 32: 1.5})
    right = timed("c", Verdict.ELIGIBLE, GOOD, {1: 9.0})
    assert serving_speedups([wide, narrow, right], (1, 32)) == {1: 2.0, 32: 4.0}
    assert serving_speedups([], (1,)) == {1: 1.0}
    assert speedups(wide, (1, 24)) == {1: 1.0, 24: 4.0}
    assert together({1: 2.0, 32: 8.0}) == pytest.approx(4.0)

"""Plans in the walk: a confined step like any other, for the reference and for whatever wins somewhere."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from compilers import walk
from compilers.isolate import Isolation
from compilers.timing import planning
from compilers.timing.plan import Setting
from compilers.walk import Subject
from model_store.entities import REFERENCE, JobKind, Plan, Verdict
from model_store.policy import Policy
from tests import zoo
from tests.compilers.compiling import events, register
from tests.gateway.engines import variant


@pytest.fixture
def subject(store):
    version, _ = register(store, "mlp", zoo.mlp(), samples={"x": np.ones((10, 64), np.float32)}, rows=[1, 2])
    return Subject(version, Policy.model_validate(version.policy), "ort-cpu", max_rows=64, guess=0, threads=2)


@pytest.fixture
def isolation(store, tmp_path, subject):
    job = store.catalog.claim("test", [JobKind.REFERENCE], 60)
    store.catalog.publish(job, dataclasses.replace(variant("mlp"), plan=Plan(threads=2, max_rows=64)))
    return Isolation(store, job, tmp_path, nice=0, stopped=lambda: False)


def test_the_reference_is_planned_once_and_published_with_its_plan(subject, isolation, store):
    assert subject.setting == Setting(2)
    planned = planning.with_reference_plan(subject, isolation)
    assert planned.plan is not None and planned.plan.max_rows == 64
    assert planned.setting == Setting(planned.plan.threads, planned.plan.instances)
    assert {point.rows for point in planned.plan.curve} == {1, 2}
    assert planning.with_reference_plan(subject, isolation).plan == planned.plan  # found again, not measured again
    log = [(event.step, event.status, event.data.get("reused")) for event in events(store, [isolation.job])]
    assert log == [("plan", "started", None), ("plan", "done", False), ("plan", "done", True)]

    (reference,) = planning.reference_planned(planned, isolation)
    assert (reference.id, reference.plan) == (REFERENCE, planned.plan)
    store.catalog.publish(isolation.job, reference)
    assert list(planning.reference_planned(planned, isolation)) == []


def test_a_reference_that_cannot_be_planned_in_time_keeps_the_simple_setting(subject, isolation):
    isolation.deadline = 0.0
    kept = planning.with_reference_plan(subject, isolation)
    assert kept.plan is None and kept.setting == Setting(2)
    assert list(planning.reference_planned(kept, isolation)) == []


def test_everything_is_measured_against_the_reference_in_the_setting_it_serves_in(subject):
    planned = dataclasses.replace(subject, plan=Plan(threads=1, max_rows=64, instances=2))
    artifact = variant("mlp", "ort-cpu.fast").artifact
    assert artifact is not None
    params = walk.measure(planned, artifact).params
    assert [(params[side]["threads"], params[side]["instances"]) for side in ("reference", "variant")] == [(1, 2)] * 2
    other = walk.measure(planned, artifact, setting=Setting(2)).params
    assert (other["reference"]["instances"], other["variant"]["threads"]) == (2, 2)
    assert walk.measure(planned, artifact).key() != walk.measure(subject, artifact).key()


def test_those_are_planned_that_are_proven_the_fastest_in_some_batch_size():
    serving = [
        variant("m", "ort-cpu.a", {1: 2.0, 8: 2.0}),
        variant("m", "ort-cpu.b", {1: 1.5, 8: 3.0}),
        variant("m", "ort-cpu.c", {1: 1.6, 8: 2.9}),
        variant("m", "ort-cpu.wrong", {1: 9.0, 8: 9.0}, Verdict.REJECTED),
        variant("m", "ort-cpu.unproven", {1: 9.0, 8: 9.0}, Verdict.INCONCLUSIVE),
    ]
    assert [each.id for each in planning.best(serving)] == ["ort-cpu.a", "ort-cpu.b"]
    assert planning.best([variant("m", "ort-cpu.slow", {1: 1.0})]) == []
    assert planning.best([]) == []

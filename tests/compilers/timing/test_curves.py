"""Plans measured for real: small models in children of their own, with real threads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
import pytest

from compilers.timing.curves import measured_plan
from compilers.timing.measure import Stopwatch, Untimeable
from compilers.timing.plan import Setting
from model_store.entities import Plan
from tests import zoo
from tests.gateway.engines import signature_of


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(model: onnx.ModelProto, folder: Path, **changed):
    onnx.save(model, folder / "small.onnx")
    params = {
        "variant": {"target": "ort-cpu", "options": {"precision": "f32"}},
        "settings": [{"threads": 2, "instances": 1}, {"threads": 1, "instances": 2}],
        "objective": "latency", "seconds": 0.5, "most_seconds": 5.0, "rows": [1, 4], "rowwise": True, "guess": 0,
        "signature": msgspec.to_builtins(signature_of(model)),
    } | changed  # fmt: skip
    return params, {"variant/model.onnx": folder / "small.onnx"}


def test_a_plan_holds_the_whole_curve_of_what_was_chosen_and_what_the_others_did(folder):
    plan = measured_plan(*asked(zoo.mlp(), folder))
    chosen = [point for point in plan.curve if (point.threads, point.instances) == (plan.threads, plan.instances)]
    others = [point for point in plan.curve if point not in chosen]
    assert [point.rows for point in chosen] == [1, 2, 4]
    assert [point.rows for point in others] == [1, 4]
    assert all(point.p50_s > 0 and point.rows_per_s > 0 for point in plan.curve)
    assert plan.buckets and set(plan.padded) <= set(plan.buckets[1:]) and plan.buckets[0] == 1
    assert plan.objective == "latency" and "2 threads, 1 instance" in plan.reason and "2 instances" in plan.reason
    assert msgspec.convert(msgspec.to_builtins(plan), Plan) == plan


def test_a_model_whose_rows_must_not_share_a_run_is_planned_for_single_requests(folder):
    plan = measured_plan(*asked(zoo.batch_mixing(), folder, rowwise=False))
    assert plan.buckets == (1,) and plan.padded == ()
    assert {point.rows for point in plan.curve} == {1}


def test_a_setting_that_cannot_be_opened_is_left_out_and_the_simplest_must_open(folder):
    params, inputs = asked(
        zoo.mlp(), folder, settings=[{"threads": 1, "instances": 1}, {"threads": "many", "instances": 1}]
    )
    assert {point.threads for point in measured_plan(params, inputs).curve} == {1}
    (folder / "small.onnx").write_bytes(b"no model")
    with pytest.raises(Untimeable):
        measured_plan(params, inputs)


def test_a_batch_size_too_slow_to_measure_is_left_out_but_never_the_first(folder):
    plan = measured_plan(*asked(zoo.mlp(), folder, most_seconds=0.0))
    assert {point.rows for point in plan.curve} == {1}
    assert plan.buckets == (), "nothing is known of larger batches, so none is refused"


def test_several_instances_are_timed_together_and_sizes_may_be_mixed(folder):
    params, inputs = asked(zoo.mlp(), folder)
    with Stopwatch(
        "variant", {**params, "variant": params["variant"] | {"threads": 1, "instances": 3}}, inputs
    ) as watch:
        watch.warm_up(2, 0.1)
        round_ = watch.run(2, 5)
        assert len(round_.ns) == 15 and max(round_.ns) <= round_.wall_ns
        assert round_.pace_ns == round_.wall_ns / 15
        assert len(watch.mix([3, 1, 2]).ns) == 3
    assert Setting(1, 3).words == "3 instances of 1 thread"

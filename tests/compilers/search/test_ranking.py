"""Layers of a model that needs no search are ranked all the same, for its card; with the search off they are not."""

import pytest

from model_store.entities import JobState, Verdict
from model_store.store import ModelStore
from tests import zoo
from tests.compilers.compiling import ended, events, register, variants, working

MODEL = zoo.residual_cnn(blocks=1)
SAMPLES = zoo.random_inputs(MODEL, 120, seed=1)
RANKED = ("sensitivity", "done")


@pytest.mark.parametrize("effort", ["auto", "off"])
def test_every_layer_that_int8_lowers_has_its_sensitivity(tmp_path, effort):
    store = ModelStore.open(tmp_path / "data")
    with working(store):
        gate = {"sqnr_db": 90}  # which no int8 keeps
        policy = {"techniques": ["int8"], "search": {"effort": effort}, "budget_trials": 0, "gate": gate}
        _, jobs = register(store, "cnn", MODEL, samples=SAMPLES, **policy)
        assert {job.state for job in ended(store, jobs)} == {JobState.SUCCEEDED}
    found = variants(store, "cnn")
    ranking = found["ort-cpu.int8-static"].evidence.sensitivity
    convolutions = [node.name for node in MODEL.graph.node if node.op_type == "Conv"]
    assert all(convolutions)
    if effort == "auto":
        assert set(convolutions) <= set(ranking)
        assert list(ranking.values()) == sorted(ranking.values()) and min(ranking.values()) > 0
    else:
        assert not ranking
    assert [event.step for event in events(store, jobs)].count("sensitivity") == (2 if effort == "auto" else 0)
    store.close()


def test_what_gains_nothing_is_not_ranked_and_what_two_targets_quantize_is_ranked_once(tmp_path):
    store = ModelStore.open(tmp_path / "data")
    targets, policy = ("ort-cpu", "openvino-cpu"), {"techniques": ["int8"], "budget_trials": 0}
    policy["search"] = {"effort": "auto"}
    with working(store):
        _, slow = register(store, "mlp", zoo.mlp(), samples=zoo.random_inputs(zoo.mlp(), 120), **policy)
        _, both = register(
            store, "cnn", MODEL, samples=SAMPLES, targets=targets, **policy, gate={"sqnr_db": 90}
        )  # fmt: skip
        assert {job.state for job in ended(store, [*slow, *both])} == {JobState.SUCCEEDED}
    assert variants(store, "mlp")["ort-cpu.int8-static"].verdict is Verdict.ELIGIBLE
    assert "sensitivity" not in [event.step for event in events(store, slow)]
    ranked = [event.data["reused"] for event in events(store, both) if (event.step, event.status) == RANKED]
    assert ranked == [False, True]
    found = variants(store, "cnn")
    assert found["ort-cpu.int8-static"].evidence.sensitivity == found["openvino-cpu.int8"].evidence.sensitivity
    store.close()

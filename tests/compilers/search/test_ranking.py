"""Layers of a model that needs no search are ranked all the same, for its card; with the search off they are not."""

import pytest

from model_store.entities import JobState
from model_store.store import ModelStore
from tests import zoo
from tests.compilers.compiling import ended, events, register, variants, working

MODEL = zoo.residual_cnn(blocks=1)
SAMPLES = zoo.random_inputs(MODEL, 120, seed=1)


@pytest.mark.parametrize("effort", ["auto", "off"])
def test_every_layer_that_int8_lowers_has_its_sensitivity(tmp_path, effort):
    store = ModelStore.open(tmp_path / "data")
    with working(store):
        policy = {"techniques": ["int8"], "search": {"effort": effort}, "budget_trials": 0}
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

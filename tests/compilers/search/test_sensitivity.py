"""Which nodes int8 hurts: the ranking finds the one that was made sensitive, and says what the outputs lose."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compilers.passes.kinds import ELEMENTWISE, PRODUCTS
from compilers.search.sensitivity import measure_sensitivity
from compilers.structure import structure
from compilers.targets.ort import OrtCpu
from tests import zoo


def opened(path):
    return OrtCpu().open({"model.onnx": path}, {}, 1)


def runs_of(model):
    return [zoo.random_inputs(model, 8, seed=seed) for seed in range(2)]


def scaled(model, node, channel, factor):
    """One output channel of a convolution made larger, and smaller again in the next: the same function, in float."""
    names = {each.name: each for each in model.graph.node}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = weights[names[node].input[1]]
    array = numpy_helper.to_array(weight).copy()
    array[channel] *= factor
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    return model


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # as in a step: its graphs lie where it works


def test_a_node_fed_with_outliers_is_the_most_sensitive():
    model = zoo.mlp(hidden=64, inputs=32)
    runs = runs_of(model)
    for run in runs:
        run["x"][:, 0] *= 1e4  # one column a thousand times all others: eight bits are spent on it ...
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == model.graph.node[0].input[1])
    array = numpy_helper.to_array(weight).copy()
    array[0] *= 1e-4  # ... and the next product makes it as small as they are
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    first, second = (node.name for node in model.graph.node if node.op_type == "Gemm")
    found = measure_sensitivity(model, runs, opened, PRODUCTS, seconds=30)
    assert found.order == (first, second)
    assert found.checked == 2
    assert found.decibels[first] < found.decibels[second] - 10


def test_the_figures_are_those_of_the_whole_model_quantized_at_that_node():
    model = zoo.residual_cnn(blocks=1)
    found = measure_sensitivity(model, runs_of(model), opened, PRODUCTS + ELEMENTWISE, seconds=30)
    names = {node.name for node in model.graph.node if node.op_type in PRODUCTS + ELEMENTWISE}
    assert set(found.order) == names == set(found.decibels)
    assert all(20 < value < 90 for value in found.decibels.values())
    assert list(found.decibels.values()) == sorted(found.decibels.values())


def test_without_time_the_local_error_ranks():
    model = zoo.transformer(layers=1)
    found = measure_sensitivity(model, runs_of(model), opened, PRODUCTS, seconds=-1)
    assert found.checked == 0
    assert len(found.order) == 8, "six products with weights, two of attention"
    assert all(20 < value < 90 for value in found.decibels.values())


@pytest.mark.parametrize("model", [zoo.simple(), zoo.multi_io(), zoo.strings()], ids=["simple", "multi_io", "strings"])
def test_a_model_with_nothing_to_quantize_has_no_ranking(model):
    found = measure_sensitivity(model, runs_of(model), opened, PRODUCTS, seconds=5)
    assert (found.order, found.decibels) == ((), {})


def test_the_model_is_left_as_it_was():
    model = zoo.mlp()
    before = model.SerializeToString(deterministic=True)
    measure_sensitivity(model, runs_of(model), opened, PRODUCTS, seconds=5)
    assert model.SerializeToString(deterministic=True) == before


def test_a_structure_is_what_decides_speed_and_not_the_numbers():
    model = zoo.residual_cnn()
    assert structure(zoo.residual_cnn(seed=1)) == structure(model)
    assert structure(scaled(zoo.residual_cnn(), "/conv_0", 0, 3)) == structure(model)
    assert structure(zoo.residual_cnn(channels=8)) != structure(model)
    strided = zoo.residual_cnn()
    next(a for n in strided.graph.node for a in n.attribute if a.name == "pads").ints[0] = 0
    assert structure(strided) != structure(model)
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    renamed.graph.node[0].op_type = "ConvInteger"
    assert structure(renamed) != structure(model)
    assert np.isclose(len(structure(model)), 64)

"""NNCF quantizes in little memory: weights in a file while it works, one copy of what a run answers, nothing left."""

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import uses_external_data

from compilers.passes import PassFailed, run_passes
from compilers.passes.int8_nncf import WEIGHT_BYTES
from compilers.recipe import PassSpec
from tests import zoo
from tests.compilers.quantized import outputs_of, sqnr

NNCF = [PassSpec("int8-nncf")]


def test_weights_that_lay_in_a_file_are_in_the_model_again_and_the_given_one_is_as_it_was(tmp_path):
    model = zoo.residual_cnn(channels=64, blocks=1)
    before = model.SerializeToString()
    assert max(len(tensor.raw_data) for tensor in model.graph.initializer) > WEIGHT_BYTES
    after = run_passes(model, NNCF, zoo.random_inputs(model, rows=16, seed=0))
    assert model.SerializeToString() == before
    assert not any(uses_external_data(tensor) for tensor in after.graph.initializer)
    onnx.checker.check_model(after, full_check=True)
    inputs = zoo.random_inputs(model, rows=16, seed=1)
    (name,) = outputs_of(model, inputs, tmp_path)
    assert sqnr(outputs_of(model, inputs, tmp_path)[name], outputs_of(after, inputs, tmp_path)[name]) > 25


def test_nncf_has_its_own_engine_again_whatever_came_of_the_pass():
    from nncf.onnx import engine

    theirs = engine.ONNXEngine
    run_passes(zoo.mlp(), NNCF, zoo.random_inputs(zoo.mlp(), rows=16, seed=0))
    assert engine.ONNXEngine is theirs
    with pytest.raises(PassFailed):
        run_passes(zoo.mlp(), NNCF, {"x": np.zeros((16, 3), np.float32)})
    assert engine.ONNXEngine is theirs

"""Every pass gets the same four tests: changes, leaves alone, a second run changes nothing, same numbers as told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compilers.passes import PASSES, load_pass, takes_samples
from compilers.passes.graph import same_graph
from compilers.recipe import PassSpec
from compilers.targets.ort import OrtCpu
from tests import zoo


@dataclass(frozen=True)
class Subject:
    """What a pass changes, what it must leave alone, and how exact it promises to be (dB, worst output)."""

    changes: Any
    leaves: Any
    least_sqnr_db: float


def untidy() -> onnx.ModelProto:
    """An MLP with a dead branch and its weight read through an Identity."""
    model = zoo.mlp()
    first = model.graph.node[0]
    model.graph.node.insert(0, onnx.helper.make_node("Identity", [first.input[1]], ["alias"], name="alias"))
    model.graph.node.insert(1, onnx.helper.make_node("Neg", ["x"], ["dead"], name="dead"))
    first.input[1] = "alias"
    return model


def foldable() -> onnx.ModelProto:
    """An MLP whose first bias is computed from constants."""
    model = zoo.mlp()
    first = model.graph.node[0]
    model.graph.node.insert(
        0, onnx.helper.make_node("Add", [first.input[2], first.input[2]], ["doubled"], name="twice")
    )
    first.input[2] = "doubled"
    return model


def old() -> onnx.ModelProto:
    """An MLP as an exporter of 2020 wrote it."""
    model = zoo.mlp()
    model.opset_import[0].version = 11
    return model


SUBJECTS = {
    "raise-opset": Subject(old, zoo.mlp, 120),
    "clean-up": Subject(untidy, zoo.simple, 120),
    "fold-constants": Subject(foldable, zoo.mlp, 120),
    "fold-batch-norm": Subject(zoo.residual_cnn, zoo.mlp, 100),
    "smooth-quant": Subject(zoo.outliers, zoo.simple, 100),
    "int8-dynamic": Subject(zoo.transformer, zoo.simple, 25),
    "int8-static": Subject(zoo.residual_cnn, zoo.simple, 25),
    "int8-nncf": Subject(zoo.mlp, zoo.simple, 25),
    "weight-only": Subject(zoo.mlp, zoo.simple, 30),
    "log-quantize": Subject(zoo.mlp, zoo.simple, 22),
    "cast": Subject(zoo.residual_cnn, zoo.simple, 50),
}


def calibration(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return zoo.random_inputs(model, rows=24, seed=3)


def run(name: str, model: onnx.ModelProto, samples: onnx.ModelProto | None = None) -> tuple[onnx.ModelProto, bool]:
    given = calibration(samples or model) if takes_samples(PassSpec(name)) else None
    result = load_pass(PassSpec(name), given)(ir.from_proto(model))
    return ir.to_proto(result.model), result.modified


def test_every_pass_has_a_subject():
    assert SUBJECTS.keys() == PASSES.keys()


@pytest.mark.parametrize("name", PASSES)
def test_changes(name):
    model = SUBJECTS[name].changes()
    after, modified = run(name, model)
    assert modified and not same_graph(model, after)
    onnx.checker.check_model(after)


@pytest.mark.parametrize("name", PASSES)
def test_leaves_alone_what_is_not_its_business(name):
    model = SUBJECTS[name].leaves()
    try:
        after, modified = run(name, model)
    except ir.passes.PreconditionError as refused:
        assert "nothing to quantize" in str(refused)
    else:
        assert not modified
        assert [node.op_type for node in after.graph.node] == [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", PASSES)
def test_second_run_changes_nothing(name):
    model = SUBJECTS[name].changes()
    once, _ = run(name, model)
    twice, modified = run(name, once, samples=model)
    assert not modified and same_graph(once, twice)


@pytest.mark.parametrize("name", PASSES)
def test_same_numbers_within_its_promise(name, tmp_path):
    model = SUBJECTS[name].changes()
    after, _ = run(name, model)
    inputs = zoo.random_inputs(model, rows=16, seed=9)
    before, now = (outputs_of(proto, inputs, tmp_path) for proto in (model, after))
    assert list(before) == list(now)
    for output, array in before.items():
        assert array.dtype == now[output].dtype and array.shape == now[output].shape
        noise = np.linalg.norm(array - now[output]) or 1e-30
        assert 20 * np.log10(np.linalg.norm(array) / noise) > SUBJECTS[name].least_sqnr_db


@pytest.mark.parametrize("name", PASSES)
def test_the_model_given_is_left_as_it_was_or_the_pass_says_so(name):
    model = ir.from_proto(SUBJECTS[name].changes())
    given = calibration(SUBJECTS[name].changes()) if takes_samples(PassSpec(name)) else None
    made = load_pass(PassSpec(name), given)
    before = ir.to_proto(model)
    made(model)
    assert made.changes_input or same_graph(before, ir.to_proto(model))


def outputs_of(model: onnx.ModelProto, inputs, tmp_path):
    onnx.save(model, tmp_path / "m.onnx")
    return OrtCpu().open({"model.onnx": tmp_path / "m.onnx"}, {}, threads=1).run(inputs)

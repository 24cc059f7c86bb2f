"""What may be searched: recipes of real passes around every candidate, never what the policy forbids."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from compilers import hardware
from compilers.passes import CALIBRATED, OBSERVED, PASSES
from compilers.recipe import candidates
from compilers.search.space import space_of
from compilers.search.warm import likeness
from model_store.policy import Policy

CNN = {"Conv": 20, "Relu": 17, "Gemm": 1}
PERCEPTRON = {"MatMul": 3, "Relu": 2}
TRANSFORMER = {"MatMul": 48, "Softmax": 6, "LayerNormalization": 13, "Add": 60}
MIXES = {"cnn": CNN, "perceptron": PERCEPTRON, "transformer": TRANSFORMER}


def spaces(**policy):
    asked = Policy(**policy)
    for label, operators in MIXES.items():
        for target in ("ort-cpu", "openvino-cpu"):
            for base in candidates(target, operators, asked):
                space = space_of(base, operators, asked)
                if space is not None:
                    yield f"{label}:{target}.{base.name}", space


SPACES = dict(spaces())


def test_every_int8_candidate_has_a_space_and_no_other():
    assert {name.partition(":")[2].partition(".")[2] for name in SPACES} == {"int8-static", "int8-dynamic", "int8"}


@pytest.mark.parametrize("name", SPACES)
def test_the_first_choice_is_the_candidate_itself(name):
    space = SPACES[name]
    assert space.recipe(space.first) == space.base
    assert space.recipe(space.first).digest() == space.base.digest()


@pytest.mark.parametrize("name", SPACES)
def test_every_value_of_every_knob_makes_a_recipe_the_passes_take(name):
    space, names = SPACES[name], set()
    for knob in space.knobs:
        for value in knob.values:
            recipe = space.recipe(space.whole({knob.name: value}), ["/b", "/a"])
            assert recipe.name.endswith("-but2")
            assert recipe.passes[-1].params["exclude"] == ["/a", "/b"]
            names.add(recipe.name)
            assert recipe.calibrated == any(spec.name in CALIBRATED for spec in recipe.passes)
            for spec in recipe.passes:
                module, _, kind = PASSES[spec.name].partition(":")
                arguments = dict(spec.params)
                arguments |= {"calibration": {}} if spec.name in CALIBRATED else {}
                arguments |= {"statistics": None} if spec.name in OBSERVED else {}
                inspect.signature(getattr(import_module(module), kind)).bind(**arguments)
    assert len(names) == 1 + sum(len(knob.values) - 1 for knob in space.knobs)


@pytest.mark.parametrize("name", SPACES)
def test_the_ladder_is_of_the_space(name):
    space = SPACES[name]
    assert space.ladder
    assert all(space.holds(space.whole(part)) and space.whole(part) != space.first for part in space.ladder)
    assert not space.holds({**space.first, space.knobs[0].name: "no such value"})
    assert not space.holds({})


def test_float_operations_beside_int8_may_run_in_bf16_where_the_cpu_and_the_policy_allow(monkeypatch):
    def knobs(**policy):
        return {knob.name for name, space in spaces(**policy) if "openvino" in name for knob in space.knobs}

    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    assert "inference_precision" in knobs()
    assert "inference_precision" not in knobs(techniques=["int8"])
    ((_, space), *_) = [(name, space) for name, space in spaces() if "openvino" in name]
    mixed = space.recipe(space.whole({"inference_precision": "bf16"}))
    assert mixed.options["inference_precision"] == "bf16"
    assert mixed.techniques == ("fusion", "int8", "mixed-precision")
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)
    assert "inference_precision" not in knobs()


def test_models_of_one_architecture_are_alike_at_any_depth():
    assert likeness(TRANSFORMER, {kind: count // 2 for kind, count in TRANSFORMER.items()}) > 0.98
    assert likeness(TRANSFORMER, CNN) < 0.5
    assert likeness({}, CNN) == 0

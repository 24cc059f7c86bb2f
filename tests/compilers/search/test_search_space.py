"""What may be searched: recipes of real passes around every candidate, never what the policy forbids."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from compilers import hardware
from compilers.passes import PASSES, takes_samples, takes_statistics
from compilers.recipe import candidates
from compilers.search.space import space_of
from compilers.search.warm import likeness
from model_store.policy import Policy

CNN = {"Conv": 20, "Relu": 17, "Gemm": 1}
PERCEPTRON = {"MatMul": 3, "Relu": 2}
TRANSFORMER = {"MatMul": 48, "Softmax": 6, "LayerNormalization": 13, "Add": 60}
MIXES = {"cnn": CNN, "perceptron": PERCEPTRON, "transformer": TRANSFORMER}


def spaces(casts=False, **policy):
    """Every space with knobs, or those of what the target itself lowers."""
    asked = Policy(**policy)
    for label, operators in MIXES.items():
        for target in ("ort-cpu", "openvino-cpu"):
            for base in candidates(target, operators, asked):
                space = space_of(base, operators, asked)
                if space is not None and space.casts == casts:
                    yield f"{label}:{target}.{base.name}", space


SPACES = dict(spaces())


def test_every_int8_candidate_has_a_space_and_no_other():
    assert {name.partition(":")[2].partition(".")[2] for name in SPACES} == {"int8-static", "int8-dynamic", "int8"}


def test_of_bf16_only_the_nodes_that_stay_in_float_are_searched(monkeypatch):
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    found = dict(spaces(casts=True))
    assert found.keys() == {f"{label}:openvino-cpu.bf16" for label in MIXES}
    for space in found.values():
        assert (space.size, space.first, space.recipe({})) == (1, {}, space.base)
        spared = space.recipe({}, ["/b", "/a"])
        assert spared.name == "bf16-but2"
        assert spared.passes[-1].params == {"precision": "bf16", "keep": ["/a", "/b"]}
        assert spared.options == {"precision": "bf16", "inference_precision": "f32"}
        assert space.prefix({}) == space.base


def test_the_smoothing_of_a_transformer_is_searched_around_what_its_candidate_has():
    space = SPACES["transformer:ort-cpu.int8-static"]
    assert [spec.name for spec in space.base.passes[-2:]] == ["smooth-quant", "int8-static"]
    other = space.recipe(space.whole({"smooth": 0.75}))
    assert [dict(spec.params) for spec in other.passes if spec.name == "smooth-quant"] == [{"alpha": 0.75}]
    assert other.name == "int8-static-smooth0.75"


def test_weights_may_be_rounded_by_what_their_inputs_are():
    asked = Policy(techniques=["weight-only"])
    for target, offers in (("ort-cpu", True), ("openvino-cpu", False)):
        (base,) = candidates(target, TRANSFORMER, asked)
        space = space_of(base, TRANSFORMER, asked)
        assert any(knob.name == "rounding" for knob in space.knobs) == offers
        if offers:
            assert not base.calibrated
            assert space.recipe(space.whole({"rounding": "gptq", "bits": 4})).calibrated


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
            assert recipe.calibrated == any(takes_samples(spec) for spec in recipe.passes)
            for spec in recipe.passes:
                module, _, kind = PASSES[spec.name].partition(":")
                arguments = dict(spec.params)
                arguments |= {"calibration": {}} if takes_samples(spec) else {}
                arguments |= {"statistics": None} if takes_statistics(spec) else {}
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

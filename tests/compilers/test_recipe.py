"""Which recipes are tried for what, and that a digest covers what can change a result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compilers import hardware, passes, recipe
from compilers.recipe import PassSpec, candidates, idle_techniques
from model_store.policy import Policy

CNN = {"Conv": 20, "Relu": 17, "Gemm": 1}
TRANSFORMER = {"MatMul": 48, "Softmax": 6, "LayerNormalization": 13, "Add": 60}
TEXT = {"Identity": 1}


def names(target, operators, **policy):
    return [found.name for found in candidates(target, operators, Policy(**policy))]


def test_a_convolutional_model_is_never_quantized_dynamically():
    assert names("ort-cpu", CNN) == ["graph-opt", "int8-static"]


def test_a_transformer_is_smoothed_before_it_is_quantized_statically():
    assert names("ort-cpu", TRANSFORMER) == ["graph-opt", "int8-dynamic", "int8-static"]
    *_, static = candidates("ort-cpu", TRANSFORMER, Policy())
    assert [spec.name for spec in static.passes[-2:]] == ["smooth-quant", "int8-static"]


def test_a_perceptron_is_quantized_both_ways():
    assert names("ort-cpu", {"MatMul": 3, "Relu": 2, "Softmax": 1}) == ["graph-opt", "int8-dynamic", "int8-static"]


def test_openvino_is_tried_in_every_precision_the_cpu_has(monkeypatch):
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    assert names("openvino-cpu", CNN) == ["f32", "bf16", "int8"]
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)
    assert names("openvino-cpu", CNN) == ["f32", "int8"]


@pytest.mark.parametrize(("target", "only"), [("ort-cpu", ["graph-opt"]), ("openvino-cpu", ["f32"])])
def test_a_model_without_products_keeps_its_precision(target, only):
    assert names(target, TEXT) == only


def test_what_its_owner_quantized_is_not_quantized_again():
    assert "int8" not in " ".join(names("ort-cpu", {**CNN, "QuantizeLinear": 3}))
    assert "int8" not in names("openvino-cpu", {**CNN, "DequantizeLinear": 3})


@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_weights_alone_are_quantized_for_whom_bytes_matter_to(target):
    assert "weights8" not in names(target, TRANSFORMER)
    assert names(target, TRANSFORMER, techniques=["weight-only"]) == ["weights8"]
    assert "weights8" in names(target, TRANSFORMER, objective="memory")
    assert "weights8" in names(target, TRANSFORMER, second_objective="size")
    assert names(target, {"Conv": 3, "Relu": 2}, techniques=["weight-only"]) == []
    assert idle_techniques(target, [], Policy(techniques=["weight-only", "prune"])) == ("weight-only", "prune")
    found = candidates(target, TRANSFORMER, Policy(techniques=["weight-only", "prune"]))
    assert idle_techniques(target, found, Policy(techniques=["weight-only", "prune"])) == ("prune",)


def test_a_target_the_policy_leaves_out_has_no_candidates():
    assert names("ort-cpu", CNN, targets=["openvino-cpu"]) == []
    assert names("ort-cuda", CNN) == []


@pytest.mark.parametrize("technique", ["fusion", "int8", "mixed-precision", "prune"])
@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_only_techniques_the_policy_allows_are_used_and_reported(target, technique):
    for found in candidates(target, TRANSFORMER, Policy(techniques=[technique])):
        assert found.techniques == (technique,)
        assert technique == "fusion" or not {"clean-up", "fold-constants"} & {spec.name for spec in found.passes}


def test_seven_bit_weights_where_int8_products_saturate(monkeypatch):
    monkeypatch.setattr(hardware, "has_int8_dot", lambda: False)
    (static,) = [found for found in candidates("ort-cpu", CNN, Policy()) if found.name == "int8-static"]
    assert static.passes[-1].params == {"reduce_range": True}


@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_every_recipe_says_its_precision_and_names_known_passes(target):
    for found in candidates(target, TRANSFORMER, Policy()):
        assert found.options["precision"] == found.precision
        assert all(spec.name in passes.PASSES for spec in found.passes)
        assert found.calibrated == any(passes.takes_samples(spec) for spec in found.passes)
        assert found.lossless == (found.precision == "f32")


def test_digest_covers_parameters_options_and_sources(monkeypatch):
    (first, *_) = candidates("ort-cpu", CNN, Policy())
    assert first.digest() == replace(first, name=first.name).digest()
    assert first.digest() != replace(first, options={**first.options, "more": 1}).digest()
    assert first.digest() != replace(first, passes=(*first.passes, PassSpec("clean-up", {"again": 1}))).digest()
    before = first.digest()
    monkeypatch.setattr(recipe, "source_digest", lambda name: "edited")
    assert first.digest() != before

"""ModelConfig as clients read it, and what a load may change of it."""

from __future__ import annotations

import json

import pytest

from gateway.errors import BadRequest, Unsupported
from gateway.model_config import config_of, limit, override_from, parse_override
from gateway.routing.ranking import MOST_ROWS, VersionRoute, rank
from tests import zoo
from tests.gateway.engines import signature_of, variant


def route(model=None, max_rows: int = 64, name: str = "simple") -> VersionRoute:
    every = {"reference": variant(name, max_rows=max_rows)}
    signature = signature_of(model or zoo.simple())
    found = VersionRoute(name, "1", signature, every, *rank(every.values(), False))
    return found.opened({"reference": None})


def test_a_batching_model_leaves_its_batch_axis_out_of_dims():
    config = config_of(route())
    assert config["max_batch_size"] == MOST_ROWS
    assert config["platform"] == "onnxruntime_onnx"
    assert config["input"][0] == {
        "name": "INPUT0", "data_type": "TYPE_INT32", "format": "FORMAT_NONE", "dims": [16], "optional": False,
        "is_shape_tensor": False,
    }  # fmt: skip
    assert config["output"][1] == {
        "name": "OUTPUT1", "data_type": "TYPE_INT32", "dims": [16], "label_filename": "", "is_shape_tensor": False,
    }  # fmt: skip
    assert config["dynamic_batching"] == {
        "preferred_batch_size": [64], "max_queue_delay_microseconds": 0, "priority_levels": 255,
        "default_priority_level": 100,
    }  # fmt: skip
    assert config["instance_group"] == [{"name": "simple_0", "kind": "KIND_CPU", "count": 1, "gpus": []}]
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize(
    ("model", "max_rows", "dims"),
    [(zoo.batch_mixing(), 1, [-1, 4]), (zoo.fixed_batch(), 64, [2, 4]), (zoo.fixed_batch(), 1, [2, 4])],
)
def test_a_model_whose_rows_cannot_be_put_together_says_so(model, max_rows, dims):
    config = config_of(route(model, max_rows))
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (0, dims)
    assert "dynamic_batching" not in config


def test_texts_have_their_own_name():
    assert config_of(route(zoo.strings()))["input"][0]["data_type"] == "TYPE_STRING"


def test_nothing_is_said_that_changes_what_clients_do():
    absent = {"response_cache", "model_transaction_policy", "sequence_batching", "ensemble_scheduling"}
    assert absent.isdisjoint(config_of(route()))


@pytest.mark.parametrize(("asked", "rows"), [("16", 16), (16, 16), (1, 1), ("0", 0), (64, 64), (MOST_ROWS, MOST_ROWS)])
def test_max_batch_size_can_be_lowered(asked, rows):
    override = override_from({"max_batch_size": asked}, route())
    limited = limit(route(), override)
    assert config_of(limited, override)["max_batch_size"] == rows
    assert limited.max_rows == max(1, min(rows, 64))


def test_a_whole_config_may_be_sent_back_with_a_change():
    config = config_of(route())
    given = json.loads(json.dumps({**config, "max_batch_size": "4", "optimization": {}, "model_warmup": []}))
    given["input"][0]["dims"] = ["16"]
    given["parameters"] = {"k": {"string_value": "v"}}
    override = override_from(given, route())
    assert override == {"max_batch_size": 4, "parameters": {"k": {"string_value": "v"}}}
    assert config_of(limit(route(), override), override)["parameters"] == {"k": {"string_value": "v"}}


def test_a_whole_config_may_be_sent_back_without_batching():
    given = {**config_of(limit(route(), {"max_batch_size": 0})), "max_batch_size": 0}
    assert override_from(given, route()) == {"max_batch_size": 0}
    assert override_from({"backend": "onnxruntime"}, route()) == {}


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"max_batch_size": 4097}, BadRequest, "max_batch_size 4097 is more than 4096"),
        ({"max_batch_size": -1}, BadRequest, "whole number"),
        ({"max_batch_size": "many"}, BadRequest, "whole number"),
        ({"max_batch_size": True}, BadRequest, "whole number"),
        ({"parameters": {"k": "v"}}, BadRequest, "string_value"),
        ({"backend": "tensorrt"}, Unsupported, "'backend' of a model cannot be changed"),
        ({"instance_group": [{"count": 4}]}, Unsupported, "instance_group"),
        ({"sequence_batching": {"x": 1}}, Unsupported, "sequence_batching"),
        ({"input": [{"name": "INPUT0"}]}, Unsupported, "'input'"),
    ],
)
def test_what_cannot_be_changed_is_refused_in_words(given, kind, words):
    with pytest.raises(kind, match=words):
        override_from(given, route())


def test_rows_that_see_one_another_are_never_batched():
    with pytest.raises(BadRequest, match="only 0 is possible"):
        override_from({"max_batch_size": 8}, route(zoo.batch_mixing(), 1))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"name": "other"}'])
def test_a_config_that_is_none_is_refused(text):
    with pytest.raises(BadRequest, match="failed to load 'simple'"):
        parse_override(text, "simple")

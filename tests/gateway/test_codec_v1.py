"""V1 `:predict` bodies: rows and columns in, predictions out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gateway.batching.batch import Answer
from gateway.codec import v1
from gateway.counts import Counts
from gateway.errors import BadRequest
from gateway.routing.ranking import VersionRoute, rank
from gateway.serve import Result
from model_store.entities import Signature, TensorSpec
from tests.gateway.engines import array, tensor, variant

ONE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
TWO = Signature(
    (TensorSpec("n", "INT64", (-1,)), TensorSpec("t", "BYTES", (-1,))),
    (TensorSpec("y", "FP32", (-1,)), TensorSpec("s", "BYTES", (-1,))),
)


def decoded(body: dict, signature: Signature) -> dict[str, list]:
    request = v1.decode(json.dumps(body).encode(), signature)
    return {name: array(t).tolist() for name, t in request.inputs}


def predictions(body: dict, signature: Signature, *outputs: np.ndarray):
    every = {"reference": variant("m")}
    route = VersionRoute("m", "1", signature, every, *rank(every.values(), False))
    answer = Answer([tensor(o) for o in outputs], "reference", "ort-cpu", "only", 0, 0, 0, 0, 0, 1, Counts())
    text = v1.encode(v1.decode(json.dumps(body).encode(), signature), Result(route, answer, 1))
    return json.loads(text)["predictions"]


def test_rows_of_a_model_with_one_input_may_be_bare_or_named():
    expected = {"x": [[1.0, 2.0], [3.0, 4.0]]}
    assert decoded({"instances": [[1, 2], [3, 4]]}, ONE) == expected
    assert decoded({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, ONE) == expected
    assert decoded({"inputs": [[1, 2], [3, 4]]}, ONE) == expected
    assert decoded({"inputs": {"x": [[1, 2], [3, 4]]}}, ONE) == expected


def test_rows_of_a_model_with_several_inputs_are_named():
    rows = [{"n": 1, "t": "a"}, {"n": 2, "t": {"b64": "/w=="}}]
    assert decoded({"instances": rows}, TWO) == {"n": [1, 2], "t": [b"a", b"\xff"]}
    assert decoded({"inputs": {"n": [1], "t": ["a"]}}, TWO) == {"n": [1], "t": [b"a"]}


@pytest.mark.parametrize(
    ("body", "signature", "words"),
    [
        ({}, ONE, "exactly one of"),
        ({"instances": [], "inputs": []}, ONE, "exactly one of"),
        ({"instances": []}, ONE, "at least one row"),
        ({"instances": [[1], [2, 3]]}, ONE, "not of one shape"),
        ({"instances": [["a", "b"]]}, ONE, "no FP32"),
        ({"instances": [1, 2]}, TWO, "every instance must be an object"),
        ({"instances": [{"n": 1}]}, TWO, r"has the inputs \['n'\]; the model has \['n', 't'\]"),
        ({"inputs": {"n": [1]}}, TWO, r"has \['n'\]; the model has"),
        ({"inputs": [1]}, TWO, "must be an object with all of them"),
        ({"inputs": {"n": [1], "t": [2]}}, TWO, "takes strings"),
        ({"inputs": {"n": [1], "t": [{"b64": "!"}]}}, TWO, "not base64"),
        ({"inputs": {"n": [1.5], "t": ["a"]}}, TWO, "no INT64"),
        ({"instances": [[1, 2]], "parameters": {"variant": 3}}, ONE, "id of a variant"),
    ],
)
def test_a_wrong_body_is_refused_with_what_would_be_right(body, signature, words):
    with pytest.raises(BadRequest, match=words):
        v1.decode(json.dumps(body).encode(), signature)


def test_a_body_that_is_not_json_is_refused():
    with pytest.raises(BadRequest, match="failed to parse"):
        v1.decode(b"{", ONE)


def test_one_output_gives_rows_and_several_give_objects():
    rows = {"instances": [[1, 2], [3, 4]]}
    assert predictions(rows, ONE, np.array([[1, 2], [3, 4]], np.float32)) == [[1.0, 2.0], [3.0, 4.0]]
    named = {"instances": [{"n": 1, "t": "a"}, {"n": 2, "t": "b"}]}
    outputs = np.array([1.5, 2.5], np.float32), np.array([b"ok", b"\xff"], dtype=object)
    assert predictions(named, TWO, *outputs) == [{"y": 1.5, "s": "ok"}, {"y": 2.5, "s": {"b64": "/w=="}}]


def test_columns_give_columns_and_scalars_are_given_whole():
    columns = {"inputs": {"n": [1], "t": ["a"]}}
    assert predictions(columns, TWO, np.array([1.5], np.float32), np.array([b"k"], dtype=object)) == {
        "y": [1.5],
        "s": ["k"],
    }
    assert predictions({"instances": [[1, 2]]}, ONE, np.array(7, np.float32)) == 7.0


def test_numbers_json_has_not_are_literals():
    value = predictions({"instances": [[1, 2]]}, ONE, np.array([[np.nan, np.inf]], np.float32))[0]
    assert value[0] != value[0] and value[1] == float("inf")


def test_a_variant_may_be_pinned():
    body = json.dumps({"instances": [[1, 2]], "parameters": {"variant": "int8"}}).encode()
    assert v1.decode(body, ONE).variant == "int8"

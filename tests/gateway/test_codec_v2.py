"""V2 bodies: JSON, binary and mixed, and the words of every refusal (PROTOCOL sections 2, 3 and 5)."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest

from gateway.batching.batch import Answer
from gateway.classification import classify
from gateway.codec import compression, v2_raw, v2_reply, v2_request
from gateway.codec.v2_header import Asked
from gateway.counts import Counts
from gateway.errors import BadRequest, TooLarge, Unsupported
from gateway.routing.ranking import VersionRoute, rank
from gateway.serve import Result
from gateway.shared_memory import Regions
from gateway.tensors import InputCheck
from model_store.entities import Signature, TensorSpec
from tests.gateway.engines import array, tensor, variant

REGIONS = Regions(True)
SIGNATURE = Signature(
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("t", "BYTES", (-1,))),
    (TensorSpec("y", "FP32", (-1, 2)), TensorSpec("s", "BYTES", (-1,))),
)


def body(header: dict, *tensors: bytes) -> tuple[bytes, int]:
    text = json.dumps(header).encode()
    return text + b"".join(tensors), len(text)


def one(data=..., shape=(1, 2), datatype="FP32", name="a", **parameters) -> dict:
    given = {"name": name, "shape": list(shape), "datatype": datatype}
    if data is not ...:
        given["data"] = data
    return given | ({"parameters": parameters} if parameters else {})


def decode_json(*inputs: dict, **more):
    return v2_request.decode(body({"inputs": list(inputs), **more})[0], None, "m", REGIONS)


@pytest.mark.parametrize("data", [[1, 2.5], [[1, 2.5]], [[1], [2.5]], [[[[1]]], [[[2.5]]]]])
def test_json_data_may_be_flat_or_nested(data):
    request = decode_json(one(data))
    np.testing.assert_array_equal(array(request.inputs[0][1]), np.array([[1, 2.5]], np.float32))


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]), ("BOOL", [1, 0]), ("UINT8", [0, 255]), ("UINT64", [0, 2**64 - 1]),
        ("INT8", [-128, 127]), ("INT64", [-(2**63), 2**63 - 1]), ("INT64", [2**53 + 1, 1]), ("FP64", [1e300, -0.5]),
        ("FP32", [3, 4]), ("FP32", [float("nan"), float("inf")]), ("BYTES", ["", "ünï"]),
    ],
)  # fmt: skip
def test_every_type_that_json_carries_arrives_exactly(datatype, data):
    request = decode_json(one(data, (2,), datatype))
    got = array(request.inputs[0][1])
    expected = [text.encode() for text in data] if datatype == "BYTES" else np.array(data, got.dtype)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (one(["x", "y"]), "values that are no FP32"),
        (one([1.5, 2], datatype="INT32"), "values that are no INT32"),
        (one([True, False], datatype="INT32"), "values that are no INT32"),
        (one([300, 1], datatype="UINT8"), "out of the range of UINT8"),
        (one([-1, 1], datatype="UINT64"), "out of the range of UINT64"),
        (one([1, None]), "values that are no FP32"),
        (one([[1], [2, 3]]), "not of one shape"),
        (one([1, 2, 3]), "Unable to parse 'data': Shape does not match true shape of 'data' field"),
        (one([[1], [2], [3]]), "Shape does not match true shape"),
        (one([[[1, 2]], [[3, 4]]]), "Shape does not match true shape"),
        (one([1, 2], datatype="BYTES"), "must hold strings only"),
        (one(["a"], datatype="BYTES"), "Shape does not match true shape"),
        (
            one([1, 2], datatype="FP16"),
            "receiving FP16 data via JSON is not supported. Please use the binary data format",
        ),
        (one([1, 2], datatype="BF16"), "receiving BF16 data via JSON is not supported"),
        (one([1, 2], datatype="FLOAT"), "invalid datatype 'FLOAT' for input 'a'; it must be one of BOOL"),
        (one([1, 2], shape=(-1, 2)), "none of them negative"),
        (one([1, 2], shape=(1,) * 40), "at most 32 sizes"),
        (one(), "Input must set only one of the following fields: 'data', .* But no field was set"),
        (one([1, 2], binary_data_size=8), "But 'data' and 'binary_data_size' in 'parameters' were set"),
        (one(binary_data_size=-1), "must not be negative"),
        ({"name": "a", "shape": [1, 2]}, "missing required field `datatype`"),
        ({"name": 1, "shape": [1, 2], "datatype": "FP32"}, "Expected `str`, got `int`"),
        ({"name": "a", "shape": ["1"], "datatype": "FP32"}, "Expected `int`, got `str`"),
    ],
)
def test_a_wrong_input_is_refused_with_words_that_say_what_is_wrong(given, words):
    with pytest.raises(BadRequest, match=words):
        decode_json(given)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"nonsense", b'{"inputs": 3}', b'{"id": 3, "inputs": []}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_body_that_is_no_request_is_refused(text):
    with pytest.raises(BadRequest, match="failed to parse the request JSON"):
        v2_request.decode(text, None, "m", REGIONS)


def test_binary_tensors_follow_the_header_in_input_order_and_mix_with_json():
    x, t = np.array([[1, 2]], np.float32), tensor(np.array([b"\0\xff"], dtype=object)).data
    given = [
        one(binary_data_size=8),
        one([7], (1,), "INT64", "n"),
        one((), (1,), "BYTES", "t", binary_data_size=len(t)),
    ]
    del given[2]["data"]
    raw, length = body({"inputs": given}, x.tobytes(), t)
    request = v2_request.decode(raw, length, "m", REGIONS)
    assert [name for name, _ in request.inputs] == ["a", "n", "t"]
    np.testing.assert_array_equal(array(request.inputs[0][1]), x)
    assert array(request.inputs[2][1]).tolist() == [b"\0\xff"]


def test_too_few_and_too_many_binary_bytes_are_refused():
    raw, length = body({"inputs": [one(binary_data_size=8)]}, bytes(5))
    with pytest.raises(BadRequest, match="unexpected size for input 'a', expecting 3 additional bytes for model 'm'"):
        v2_request.decode(raw, length, "m", REGIONS)
    with pytest.raises(BadRequest, match="unexpected additional input data for model 'm'"):
        v2_request.decode(raw + bytes(4), length, "m", REGIONS)


@pytest.mark.parametrize("value", [b"-1", b"x", b"101", b"1.5", b"", b"9" * 5000])
def test_a_header_length_outside_the_body_is_refused(value):
    with pytest.raises(BadRequest, match=r"inference header size should be in range \(0, 100\), got: "):
        v2_request.check_header_length(value, 100)


def test_the_header_length_may_equal_the_body_when_all_inputs_are_json():
    raw, length = body({"inputs": [one([1, 2])]})
    assert v2_request.check_header_length(str(length).encode(), len(raw)) == length
    assert len(v2_request.decode(raw, length, "m", REGIONS).inputs) == 1


def test_parameters_with_a_meaning_are_read_and_others_ignored():
    request = decode_json(
        one([1, 2]),
        id="42",
        model_name="m",
        outputs=[{"name": "y", "parameters": {"binary_data": False}}, {"name": "s"}],
        parameters={"timeout": 2_500_000, "variant": "int8", "binary_data_output": True, "priority": 1, "mine": 1.5},
    )
    assert (request.id, request.timeout_s, request.variant, request.binary) == ("42", 2.5, "int8", True)
    assert request.outputs == (Asked("y", False), Asked("s", True))
    assert request.priority == 1


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"parameters": {"triton_x": 1}}, BadRequest, "parameter keys starting with 'triton_'"),
        ({"parameters": {"headers": 1}}, BadRequest, "'headers' is reserved"),
        ({"parameters": {"mine": None}}, BadRequest, "'mine' has invalid type. It should be either 'int', 'bool'"),
        ({"parameters": {"mine": [1]}}, BadRequest, "'mine' has invalid type"),
        ({"parameters": {"priority": -1}}, BadRequest, "Unable to parse 'priority'"),
        ({"parameters": {"priority": 1.5}}, BadRequest, "Unable to parse 'priority'"),
        ({"parameters": {"timeout": 1.5}}, BadRequest, "Unable to parse 'timeout'"),
        ({"parameters": {"sequence_id": 1.5}}, BadRequest, "Unable to parse 'sequence_id'"),
        ({"parameters": {"sequence_start": "yes"}}, BadRequest, "Unable to parse 'sequence_start'"),
        ({"parameters": {"timeout": -1}}, BadRequest, "microseconds"),
        ({"parameters": {"timeout": "1"}}, BadRequest, "microseconds"),
        ({"parameters": {"binary_data_output": 1}}, BadRequest, "true or false"),
        ({"parameters": {"variant": 1}}, BadRequest, "id of a variant"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 0}}]}, BadRequest, "number of classes, 1 or more"),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, BadRequest, "_byte_size'"),
    ],
)
def test_wrong_and_unsupported_parameters_are_refused(more, kind, words):
    with pytest.raises(kind, match=words):
        decode_json(one([1, 2]), **more)


CHECKED = [
    ([one([1, 2])], "expected 2 inputs but got 1 inputs for model 'm'. Got input.*missing required input.*'t'"),
    ([one([1, 2]), one([1, 2])], "input 'a' already exists in request"),
    ([one([1, 2], name="b")], "unexpected inference input 'b' for model 'm'"),
    ([one([1, 2], datatype="FP64")], "inference input 'a' data-type is 'FP64', but model 'm' expects 'FP32'"),
    ([one([1, 2, 3], (1, 3))], r"unexpected shape for input 'a' for model 'm'. Expected \[-1,2\], got \[1,3\]"),
    ([one([1, 2], (2,))], r"unexpected shape for input 'a' .*Expected \[-1,2\], got \[2\]"),
    (
        [one(shape=(4, 2), binary_data_size=8)],
        "input byte size mismatch for input 'a' for model 'm'. Expected 32, got 8",
    ),
]


@pytest.mark.parametrize(("inputs", "words"), CHECKED)
def test_inputs_are_held_against_the_signature_in_tritons_words(inputs, words):
    raw, length = body({"inputs": inputs}, b"".join(bytes(8) for i in inputs if "data" not in i))
    request = v2_request.decode(raw, length, "m", REGIONS)
    with pytest.raises(BadRequest, match=rf"^\[request id: <id_unknown>\] .*{words}"):
        InputCheck("m", SIGNATURE)(request.inputs)
    with pytest.raises(BadRequest, match=rf"^{words}"):
        InputCheck("m", SIGNATURE)(request.inputs, None)
    with pytest.raises(BadRequest, match=r"^\[request id: 7\] "):
        InputCheck("m", SIGNATURE)(request.inputs, "7")


@pytest.mark.parametrize("data", [b"\5\0\0\0abc", b"\1\0\0", b"\0\0\0\0" * 3, b"\xff\xff\xff\xff"])
def test_length_prefixes_must_add_up(data):
    text = one(shape=(2,), datatype="BYTES", name="t", binary_data_size=len(data))
    raw, length = body({"inputs": [one([1, 2, 3, 4], (2, 2)), text]}, data)
    request = v2_request.decode(raw, length, "m", REGIONS)
    for _ in range(2):  # what is remembered of the layout must not skip the look at the bytes
        with pytest.raises(BadRequest, match="expected 2 strings for inference input 't'"):
            InputCheck("m", SIGNATURE)(request.inputs)


def test_rows_and_key_tell_what_may_be_batched():
    check = InputCheck("m", SIGNATURE)

    def checked(rows_a, rows_t):
        a = ("a", tensor(np.zeros((rows_a, 2), np.float32)))
        return check([("t", tensor(np.array([b"x"] * rows_t, dtype=object))), a])

    assert checked(3, 3).rows == 3
    assert checked(3, 3).key == ((2,), ())
    assert [t.datatype for t in checked(3, 3).inputs] == ["FP32", "BYTES"]
    assert checked(3, 2).key is None
    assert checked(0, 0).key is None


def result(y=((1.5, 2.0),), s=(b"a",)) -> Result:
    every = {"reference": variant("m")}
    route = VersionRoute("m", "1", SIGNATURE, every, *rank(every.values(), False))
    outputs = [tensor(np.array(y, np.float32)), tensor(np.array(s, dtype=object))]
    return Result(route, Answer(outputs, "reference", "ort-cpu", "only", 0, 0, 0, 0, 0, 1, Counts()), 1)


def encoded(asked, answer=None) -> tuple[dict, bytes, int | None]:
    reply = v2_reply.encode(asked, answer or result(), REGIONS)
    whole = b"".join(reply.chunks)
    assert len(whole) == reply.nbytes
    length = len(whole) if reply.json_bytes is None else reply.json_bytes
    return json.loads(whole[:length]), whole[length:], reply.json_bytes


def test_all_outputs_are_answered_in_json_unless_binary_is_asked_for():
    head, tail, length = encoded(decode_json(one([1, 2]), id="7"))
    assert head == {
        "id": "7",
        "model_name": "m",
        "model_version": "1",
        "parameters": {"variant": "reference"},
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]},
            {"name": "s", "datatype": "BYTES", "shape": [1], "data": ["a"]},
        ],
    }
    assert (tail, length) == (b"", None)


def test_an_answer_without_an_id_has_none():
    assert "id" not in encoded(decode_json(one([1, 2])))[0]


def test_binary_outputs_lie_behind_the_json_in_the_order_asked_for():
    asked = decode_json(one([1, 2]), outputs=[{"name": "s", "parameters": {"binary_data": True}}, {"name": "y"}])
    head, tail, length = encoded(asked)
    assert [output["name"] for output in head["outputs"]] == ["s", "y"]
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 5}
    assert "data" not in head["outputs"][0]
    assert tail == b"\1\0\0\0a"
    assert length is not None


def test_only_empty_binary_outputs_make_a_plain_json_answer():
    asked = decode_json(one([1, 2]), outputs=[{"name": "s", "parameters": {"binary_data": True}}])
    head, tail, length = encoded(asked, result(s=()))
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 0}
    assert (tail, length) == (b"", None)


def test_large_tensors_are_sent_as_they_are_and_small_answers_in_one_piece():
    asked = decode_json(one([1, 2]), parameters={"binary_data_output": True})
    assert len(v2_reply.encode(asked, result(), REGIONS).chunks) == 1
    large = v2_reply.encode(asked, result(y=np.zeros((20_000, 2)), s=[b"x"] * 20_000), REGIONS)
    assert len(large.chunks) == 3


def test_numbers_json_has_not_are_literals_that_python_reads():
    text = b"".join(
        v2_reply.encode(decode_json(one([1, 2])), result(y=((float("nan"), float("-inf")),)), REGIONS).chunks
    )
    assert b"NaN" in text and b"-Infinity" in text
    data = json.loads(text)["outputs"][0]["data"]
    assert data[0] != data[0] and data[1] == float("-inf")


def test_bytes_that_are_no_text_must_be_asked_for_as_binary():
    with pytest.raises(BadRequest, match="output 's' holds bytes that are not UTF-8 text: ask for it as binary"):
        v2_reply.encode(decode_json(one([1, 2])), result(s=(b"\xff",)), REGIONS)


def test_outputs_nobody_has_and_half_precision_in_json_are_refused_before_anything_runs():
    every = {"reference": variant("m")}
    half = Signature((TensorSpec("a", "FP32", (-1, 2)),), (TensorSpec("h", "FP16", (-1,)),))
    route = VersionRoute("m", "1", half, every, *rank(every.values(), False))
    with pytest.raises(BadRequest, match="unexpected inference output 'z' for model 'm'"):
        v2_reply.check_outputs(decode_json(one([1, 2]), outputs=[{"name": "z"}]), route, REGIONS)
    with pytest.raises(BadRequest, match="sending FP16 data via JSON is not supported"):
        v2_reply.check_outputs(decode_json(one([1, 2])), route, REGIONS)
    v2_reply.check_outputs(decode_json(one([1, 2]), parameters={"binary_data_output": True}), route, REGIONS)


def test_gzip_and_deflate_are_unpacked_within_the_limit():
    plain = b"x" * 1000
    assert compression.decompress(gzip.compress(plain), b"gzip", 1000) == plain
    assert compression.decompress(zlib.compress(plain), b"Deflate", 1000) == plain
    assert compression.decompress(plain, b"identity", 10) == plain
    with pytest.raises(TooLarge, match="unpacks to more than 999 bytes"):
        compression.decompress(gzip.compress(plain), b"gzip", 999)
    with pytest.raises(BadRequest, match="cut off"):
        compression.decompress(gzip.compress(plain)[:-4], b"gzip", 1000)
    with pytest.raises(BadRequest, match="not valid gzip"):
        compression.decompress(plain, b"gzip", 1000)
    with pytest.raises(Unsupported) as refusal:
        compression.decompress(plain, b"br", 1000)
    assert refusal.value.headers == {"accept-encoding": "gzip, deflate"}


def test_a_shape_no_memory_can_hold_is_refused_even_when_it_is_empty():
    request = decode_json(one(shape=(0, 2, 2**62), binary_data_size=0))
    check = InputCheck("m", Signature((TensorSpec("a", "FP32", (-1, -1, -1)),), ()))
    with pytest.raises(BadRequest, match="causes total element count to exceed maximum size of"):
        check(request.inputs)
    with pytest.raises(BadRequest, match="beyond 63 bits"):
        decode_json(one(shape=(0, 2**63), binary_data_size=0))


@pytest.mark.parametrize(("datatype", "data"), [("BYTES", "x"), ("INT64", 1)])
def test_lists_are_nested_as_deep_as_in_triton_and_no_deeper(datatype, data):
    def nested(depth):
        return json.loads("[" * depth + json.dumps(data) + "]" * depth)

    assert len(decode_json(one(nested(50), (1,), datatype)).inputs) == 1
    for depth in (120, 5000):
        text = b'{"inputs": [{"name": "a", "shape": [1], "datatype": "%b", "data": %b}]}'
        deep = b"[" * depth + json.dumps(data).encode() + b"]" * depth
        with pytest.raises(BadRequest):
            v2_request.decode(text % (datatype.encode(), deep), None, "m", REGIONS)


def test_a_scalar_and_an_empty_tensor_travel_both_ways():
    for data, shape in (([7], ()), ([], (0, 3)), ([], (2, 0))):
        request = decode_json(one(data, shape, "INT64"))
        assert array(request.inputs[0][1]).shape == shape
    raw, length = body({"inputs": [one(shape=(0, 3), binary_data_size=0)]})
    assert array(v2_request.decode(raw, length, "m", REGIONS).inputs[0][1]).shape == (0, 3)


def route_of(signature: Signature, max_batch_size: int = 64) -> VersionRoute:
    every = {"reference": variant("m")}
    found = VersionRoute("m", "1", signature, every, *rank(every.values(), False))
    return found.limited(max_batch_size)


def raw(datatype: str, shape: tuple[int, ...], data: bytes, max_batch_size: int = 64):
    signature = Signature((TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),))
    return v2_raw.decode(data, route_of(signature, max_batch_size))


@pytest.mark.parametrize(
    ("datatype", "shape", "batched", "nbytes", "deduced"),
    [
        ("FP32", (-1, 4), True, 16, (1, 4)),
        ("FP32", (-1, -1, 2), True, 48, (1, 6, 2)),
        ("FP32", (-1, 4), False, 32, (2, 4)),
        ("FP16", (-1,), False, 8, (4,)),
        ("FP32", (2, 4), False, 32, (2, 4)),
        ("INT64", (-1,), True, 8, (1,)),
        ("FP32", (-1,), False, 0, (0,)),
        ("BYTES", (-1,), True, 3, (1,)),
        ("BYTES", (-1, 1), True, 3, (1, 1)),
    ],
)
def test_the_shape_of_a_raw_tensor_follows_from_the_model(datatype, shape, batched, nbytes, deduced):
    request = raw(datatype, shape, bytes(nbytes), 64 if batched else 0)
    ((name, got),) = request.inputs
    assert (name, got.datatype, got.shape, request.binary, request.outputs) == ("x", datatype, deduced, True, None)
    assert bytes(got.data) == (b"\3\0\0\0" + bytes(3) if datatype == "BYTES" else bytes(nbytes))


@pytest.mark.parametrize(
    ("datatype", "shape", "words"),
    [
        ("FP32", (-1, -1, -1), "The shape of the raw input 'x' can not be deduced because there are more than one"),
        ("FP32", (-1, -1, 3), "7 bytes are no multiple of 12"),
        ("FP32", (-1, -1, 0), "no multiple of 0"),
        ("BYTES", (-1, 2), r"For BYTE datatype raw input 'x', the model must have input shape \[1\]"),
        ("BYTES", (-1, -1), "For BYTE datatype raw input"),
    ],
)
def test_a_raw_tensor_whose_shape_does_not_follow_is_refused(datatype, shape, words):
    with pytest.raises(BadRequest, match=words):
        raw(datatype, shape, bytes(7))


def test_a_raw_request_needs_a_model_with_one_input():
    words = r"Raw request must only have 1 input \(found 1\) to be deduced but got 2 inputs in 'm' model configuration"
    with pytest.raises(BadRequest, match=words):
        v2_raw.decode(b"", route_of(SIGNATURE))


def classified(values: np.ndarray, count: int, batched: bool) -> list:
    answer = classify(tensor(values), count, batched)
    return [text.decode() for text in array(answer).ravel()], answer.shape


def test_classification_gives_the_largest_values_of_every_row():
    values = np.array([[0.1, 0.7, 0.2], [3, 1, 2]], np.float32)
    assert classified(values, 2, True) == (
        ["0.700000:1", "0.200000:2", "3.000000:0", "2.000000:2"],
        (2, 2),
    )
    assert classified(values, 2, False) == (["3.000000:3", "2.000000:5"], (2,))
    assert classified(values, 99, True)[1] == (2, 3)
    assert classified(np.array([5, 250, 5], np.uint8), 3, False) == (["250:1", "5:0", "5:2"], (3,))
    assert classified(np.array([np.nan, -np.inf, 1], np.float64), 3, False)[0] == ["1.000000:2", "nan:0", "-inf:1"]
    assert classified(np.zeros((0, 3), np.float32), 2, True) == ([], (0, 2))


@pytest.mark.parametrize("datatype", ["BYTES", "FP16", "BF16", "BOOL"])
def test_what_has_no_largest_values_is_not_classified(datatype):
    route = route_of(Signature((), (TensorSpec("y", datatype, (-1,)),)))
    asked = decode_json(one([1, 2]), outputs=[{"name": "y", "parameters": {"classification": 1}}])
    words = f"class result not available for output 'y' due to unsupported type '{datatype}'"
    with pytest.raises(BadRequest, match=words):
        v2_reply.check_outputs(asked, route, REGIONS)


def test_classification_is_answered_in_json_or_binary():
    for binary in (False, True):
        parameters = {"classification": 1, "binary_data": binary}
        asked = decode_json(one([1, 2]), outputs=[{"name": "y", "parameters": parameters}])
        head, tail, _ = encoded(asked)
        (output,) = head["outputs"]
        assert (output["datatype"], output["shape"]) == ("BYTES", [1])
        assert tail == b"\x0a\0\0\0002.000000:1" if binary else output["data"] == ["2.000000:1"]


def test_only_what_gets_smaller_is_packed():
    noise = np.random.default_rng(0).standard_normal(10_000).astype(np.float32).tobytes()
    assert not compression.pays([b'{"outputs": []}', memoryview(noise)])
    assert compression.pays([json.dumps(list(range(1000))).encode()])
    assert compression.pays([b"{}", memoryview(bytes(100_000))])


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        (b"gzip", b"gzip"),
        (b"deflate", b"deflate"),
        (b"gzip, deflate, br", b"gzip"),
        (b"GZIP;q=0.5, deflate;q=0.8", b"deflate"),
        (b"gzip;q=0, deflate;q=0", None),
        (b"*", b"gzip"),
        (b"gzip;q=0, *", b"deflate"),
        (b"*;q=0", None),
        (b"identity, gzip;q=0.5", None),
        (b"identity;q=0.5, gzip;q=0.5", b"gzip"),
        (b"br", None),
        (b"", None),
        (b"gzip;q=many", None),
        (b"gzip;q=nan", None),
        (b";;,;q=1", None),
    ],
)
def test_an_answer_is_packed_as_the_client_likes_best(accept, encoding):
    assert compression.preferred(accept) == encoding
    if encoding is not None:
        packed = compression.compress([b"abc" * 100, memoryview(b"x" * 10)], encoding)
        assert compression.decompress(packed, encoding, 1000) == b"abc" * 100 + b"x" * 10


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_long_flat_lists_are_read_as_short_and_nested_ones_are(datatype):
    values = np.random.default_rng(0).standard_normal(3000) * 10.0 ** np.random.default_rng(1).integers(-45, 38, 3000)
    data = [*values.tolist(), 0, -0.0, 7, -12, 2**40, 1e-320, 3.5e38, -1e308]
    flat = decode_json(one(data, (len(data),), datatype)).inputs[0][1]
    nested = decode_json(one([[each] for each in data], (len(data), 1), datatype)).inputs[0][1]
    with np.errstate(over="ignore"):
        expected = np.array(data).astype({"FP32": np.float32, "FP64": np.float64}[datatype])
    assert bytes(flat.data) == bytes(nested.data) == expected.tobytes()


@pytest.mark.parametrize(
    ("data", "datatype", "words"),
    [
        ([True] * 2000, "FP32", "holds values that are no FP32"),
        ([1.5] * 2000, "INT32", "holds values that are no INT32"),
        ([1.5] * 1999 + [None], "FP32", "holds values that are no FP32"),
        ([1.5] * 1999, "FP32", "Shape does not match true shape"),
        (["1.5"] * 2000, "FP64", "holds values that are no FP64"),
    ],
)
def test_long_lists_are_refused_in_the_words_for_short_ones(data, datatype, words):
    with pytest.raises(BadRequest, match=words):
        decode_json(one(data, (2000,), datatype))


def test_long_lists_of_integers_keep_every_digit():
    data = [2**62 + nth for nth in range(2000)]
    tensor = decode_json(one(data, (2000,), "INT64", note="FP32")).inputs[0][1]
    assert np.frombuffer(tensor.data, np.int64).tolist() == data

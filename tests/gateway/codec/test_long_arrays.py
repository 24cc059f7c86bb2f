"""Long arrays of numbers in JSON: read by simdjson or as lists, a body means the same and is refused alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.codec import long_arrays, v1, v2_request
from gateway.codec.long_arrays import LEAST_BYTES, Long, cut, read
from gateway.errors import GatewayError
from gateway.shared_memory import Regions
from model_store.entities import Signature, TensorSpec

REGIONS = Regions(True)
DATATYPES = ["FP32", "FP64", "INT8", "INT32", "INT64", "UINT8", "UINT64", "BOOL", "FP16", "BYTES"]
LITERALS = [
    "-0", "-0.0", "0", "1", "1E5", "1e-320", "1e400", "3.5e38", "-1e39", "01", "1.", ".5", "+1", "0x1", "true", "null",
    "NaN", "-Infinity", '"x"', '"[1]"', "{}", '{"data": [1]}', "[]", "[1", "1]", "9007199254740993",
    "1152921573326323713", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "340282356779733661637539395458142568448", "\u00e9", "",
]  # fmt: skip
"""`1152921573326323713` is (2 ** 24 + 1) * 2 ** 36 + 1: rounded once or twice, it is another FP32."""

scalars = (
    st.sampled_from(LITERALS)
    | st.integers(-(2**70), 2**70).map(str)
    | st.floats(width=32).map(json.dumps)
    | st.floats().map(json.dumps)
    | st.integers(-130, 260).map(str)
)
plain = st.integers(-100, 100).map(str) | st.floats(-1e9, 1e9).map(json.dumps)


def array_of(text: bytes) -> Long:
    return Long(memoryview(text), text.count(b"["))


def nested(values: list[str], sizes: list[int]) -> str:
    """Values as arrays of arrays; `sizes`: of all but the outermost level."""
    for size in reversed(sizes):
        values = [f"[{', '.join(values[at : at + size])}]" for at in range(0, len(values), size)]
    return f"[{','.join(values)}]"


even = st.builds(
    lambda values, sizes: nested(values * int(np.prod(sizes)), sizes),
    st.lists(plain | scalars, min_size=1, max_size=3) | st.lists(plain, min_size=1, max_size=6),
    st.lists(st.integers(1, 3), max_size=3),
)
uneven = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4).map(lambda v: f"[{' ,'.join(v)}]"), max_leaves=9
)
arrays = even | uneven | st.lists(plain).map(lambda values: f"[\n{', '.join(values)}\t]")
fields = st.sampled_from(
    ['"id": "7"', '"more": [1, 2]', '"data": [1.5]', '"data": 3', '"parameters": {"data": [1]}', '"name": "b"',
     '"x": "\\""']
)  # fmt: skip


@st.composite
def v2_inputs(draw: st.DrawFn) -> str:
    shape = draw(st.sampled_from([[1], [2], [3], [4], [2, 2], [6], [0]]) | st.just([len(draw(st.lists(st.none())))]))
    parts = [
        '"name": "a"',
        f'"shape": {shape}',
        f'"datatype": "{draw(st.sampled_from(DATATYPES))}"',
        f'"data"{draw(st.sampled_from(["", " "]))}:{draw(st.sampled_from(["", " "]))}{draw(arrays)}',
        *draw(st.lists(fields, max_size=1)),
    ]
    return "{" + ", ".join(draw(st.permutations(parts))) + "}"


@st.composite
def spoilt(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> bytes:
    """A body, and now and then one with bytes taken out, put in, or behind it."""
    body = draw(texts).encode()
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at, taken = draw(st.integers(0, len(body))), draw(st.integers(0, 2))
        put = draw(st.sampled_from([b"", b"\xff", b"[", b"]", b",", b'"', b"}", b" ", b"1", b"\0", b'"data":[', b"\\"]))
        body = body[:at] + put + body[at + taken :]
    return body


v2_bodies = spoilt(
    st.builds(
        lambda inputs, more: "{" + ", ".join([f'"inputs": [{", ".join(inputs)}]', *more]) + "}",
        st.lists(v2_inputs(), min_size=1, max_size=2),
        st.lists(fields, max_size=1),
    )
)
v1_bodies = spoilt(
    st.builds(
        lambda key, data, more: "{" + ", ".join([f'"{key}": {data}', *more]) + "}",
        st.sampled_from(["instances", "inputs"]),
        arrays | arrays.map(lambda data: f'{{"a": {data}}}') | arrays.map(lambda data: f'[{{"inputs": {data}}}]'),
        st.lists(fields | st.just('"inputs": [1, 2]') | st.just('"instances": [[3]]'), max_size=1),
    )
)


def outcome(decode: Callable[[], Any]) -> Any:
    """What a body is read as, in bytes, or how it is refused."""
    try:
        request = decode()
    except GatewayError as exc:
        return type(exc), str(exc)
    inputs = [(name, given.datatype, given.shape, bytes(given.data)) for name, given in request.inputs]
    return {key: getattr(request, key) for key in request.__struct_fields__} | {"inputs": inputs}


def agree(decode: Callable[[], Any]) -> Any:
    """The outcome, which is the same for arrays of any length."""
    found = []
    for least in (0, 1 << 40):
        with pytest.MonkeyPatch.context() as patch:
            for module in (long_arrays, v1, v2_request):
                patch.setattr(module, "LEAST_BYTES", least)
            found.append(outcome(decode))
    assert found[0] == found[1]
    return found[0]


@settings(max_examples=300, deadline=None)
@given(v2_bodies)
@example(b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1152921573326323713]}]}')
@example(b'{"inputs": [{"name": "a", "shape": [3], "datatype": "FP32", "data": [1, [2, 3], []]}]}')
@example(b'{"inputs": [{"name": "a", "shape": [3], "datatype": "FP32", "data": [[1, 2], [3]]}]}')
@example(b'{"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [2], "data": [3]}]}')
@example(b'{"data": [1, ], "inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [2]}]}')
@example(b'{"inputs": [{"name": "\\"data", "shape": [1], "datatype": "FP32", "data": [2]}], "\\"data": [1]}')
def test_a_v2_body_means_the_same_however_it_is_read(body):
    agree(lambda: v2_request.decode(body, None, "m", REGIONS))


@settings(max_examples=100, deadline=None)
@given(v2_inputs(), st.binary(max_size=12), st.integers(-2, 2))
def test_so_does_a_header_with_binary_tensors_behind_it(held, tail, off):
    behind = '{"name": "b", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}'
    body = f'{{"inputs": [{held}, {behind}]}}'.encode() + tail
    length = min(len(body), max(0, len(body) - len(tail) + off))
    agree(lambda: v2_request.decode(body, length, "m", REGIONS))


@settings(max_examples=200, deadline=None)
@given(v1_bodies, st.sampled_from(DATATYPES), st.sampled_from([("a",), ("inputs",), ("a", "b")]))
def test_a_v1_body_means_the_same_however_it_is_read(body, datatype, names):
    signature = Signature(tuple(TensorSpec(name, datatype, (-1,)) for name in names), ())
    agree(lambda: v1.decode(body, signature))


@pytest.mark.parametrize("shape", [(150, 3), (1, 3, 10, 15), (450,), (450, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint64", "uint8", "int16"])
def test_plain_arrays_are_read_without_lists(shape, dtype):
    values = (np.random.default_rng(0).random(shape) * 200 - (0 if dtype[0] == "u" else 100)).astype(dtype)
    got = read(array_of(json.dumps(values.tolist()).encode()), np.dtype(dtype))
    assert got is not None and got.dtype == dtype
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize(
    "text",
    [b"[]", b"[[]]", b"[[1], [2, 3]]", b"[1, [2]]", b"[1, [2, 3], []]", b"[[1, [2]], [3, 4]]", b"[1, true]", b"[1, 2",
     b"[1, NaN]", b"[" * 40 + b"1" + b"]" * 40, b"[" * 5000, b"[1] 2"],
)  # fmt: skip
def test_what_is_not_plainly_one_array_is_left_to_others(text):
    assert read(array_of(text), np.dtype("float32")) is None
    got = read(array_of(b"[[1, 2], [3, 4]]"), np.dtype("float32"))
    assert got is not None and got.tolist() == [[1, 2], [3, 4]]


def test_the_short_text_says_everything_but_the_long_arrays():
    long = json.dumps(list(range(LEAST_BYTES))).encode()
    text = b'{"a": {"data" :\n%b}, "data": [1, 2], "b": {"data":%b , "c": "%b"}}' % (long, long, long)
    found = cut(text, b'"data"')
    assert found is not None and [bytes(each.text) for each in found.arrays] == [long, long]
    rest = json.loads(found.text)
    assert (found.at(rest["a"]["data"]), found.at(rest["b"]["data"])) == (0, 1)
    assert found.at(rest["data"]) is None
    assert rest["b"]["c"] == long.decode()
    assert cut(b'{"data": [1, 2]}', b'"data"') is None

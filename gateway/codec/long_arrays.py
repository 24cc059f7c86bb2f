"""Long arrays of numbers in a JSON text, read without a Python object for each number.

`cut` takes them out of the text and leaves a short one, which says everything else and is read as ever; `read` has
simdjson (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", VLDB Journal 28, 2019) put the numbers of one
into memory at once. An image costs little more than half of what it costs as a list of Python's.

Only what is plainly an array of numbers of one shape, all of which suit the type, is read here. Of anything else `read`
says None, and the text is read whole, as if this file did not exist: so what is refused, and in which words, is
decided in one place, and both readers agree (tests/gateway/codec/test_long_arrays.py).
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Literal, NamedTuple

import numpy as np
from simdjson import Array, Parser

LEAST_BYTES = 1 << 14
"""Texts, and arrays in them, below this size are read as fast as lists."""

_MOST_DEPTH = 32
_WIDEST = {"d": np.dtype("<f8"), "i": np.dtype("<i8"), "u": np.dtype("<u8")}
_EXACT = 2.0**53
_VALUE = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*(?=\[)")
_FLOAT = re.compile(rb"[.eE]")
_KEPT_BYTES = 8 << 20
_parsers: list[Parser] = []
"""What is at leisure, with the memory it works in: 2700 page faults for an image otherwise, which cost as much as the
reading. What longer texts need is given back."""

_MARK = secrets.token_hex(16)
"""Stands for an array in what is left of its text. Nobody can guess it, so no text holds it already."""


class Long(NamedTuple):
    """The text of what is probably a long array, and how many arrays begin in it, itself one of them."""

    text: memoryview
    begun: int


class Cut(NamedTuple):
    """`text`: with a mark in place of each of the `arrays`."""

    text: bytes
    arrays: list[Long]

    def at(self, value: Any) -> int | None:
        """Which of the arrays a value of the short text stands for."""
        if type(value) is list and len(value) == 1 and type(value[0]) is str and value[0].startswith(_MARK):
            return int(value[0].removeprefix(_MARK))
        return None


def cut(text: bytes, key: bytes) -> Cut | None:
    """Take out what looks like a long array of numbers behind a `key` (with its quotes); None: there is none.

    Neither a string nor an object is in such an array, so it ends before the next quote or brace. What is taken out
    is not looked at: if it is no whole array, `read` will say so. If it is one, the text without it is JSON exactly
    if the text is.
    """
    parts: list[bytes] = []
    arrays: list[Long] = []
    kept = at = 0
    while (found := text.find(key, at)) >= 0:
        at = found + len(key)
        value = _VALUE.match(text, at)
        if value is None:
            continue
        start = value.end()
        at = text.find(b'"', start)
        at = len(text) if at < 0 else at
        brace = text.find(b"}", start, at)
        end = text.rfind(b"]", start, at if brace < 0 else brace) + 1
        if end - start >= LEAST_BYTES:
            parts += (text[kept:start], b'["%b%d"]' % (_MARK.encode(), len(arrays)))
            nested = text.find(b"[", start + 1, end) >= 0  # to find none takes a tenth of the time of counting
            arrays.append(Long(memoryview(text)[start:end], text.count(b"[", start, end) if nested else 1))
            kept = end
    return Cut(b"".join((*parts, text[kept:])), arrays) if arrays else None


def read(array: Long, dtype: np.dtype) -> np.ndarray | None:
    """The array that a text is, nested as it is there: what numpy makes of the lists, exactly, or None."""
    if dtype.kind not in "fiu":
        return None
    try:
        parser = _parsers.pop()
    except IndexError:
        parser = Parser()
    try:
        values = _values(parser, array, "d" if dtype.kind == "f" else "u" if dtype == np.uint64 else "i")
    except (ValueError, TypeError, RuntimeError, IndexError):
        values = None
    if len(array.text) <= _KEPT_BYTES and not _parsers:
        _parsers.append(parser)
    if values is None or not _exact(values, array.text, dtype):
        return None
    with np.errstate(over="ignore"):
        return values.astype(dtype, copy=False)


def _values(parser: Parser, array: Long, kind: Literal["d", "i", "u"]) -> np.ndarray | None:
    found = parser.parse(array.text)
    if not isinstance(found, Array):
        return None
    values: np.ndarray = np.frombuffer(found.as_buffer(of_type=kind), _WIDEST[kind])
    shape = _shape(found, array.begun, values.size)
    return None if shape is None else values.reshape(shape)


def _shape(found: Array, begun: int, count: int) -> tuple[int, ...] | None:
    """The shape if `found`, in which so many arrays begin and which holds `count` numbers, is nested evenly."""
    level: list[Any] = [found]
    sizes, arrays = [len(found)], 1
    while type(level[0][0]) is Array and len(sizes) < _MOST_DEPTH:
        level = [child for each in level for child in each]
        if {type(child) for child in level} != {Array} or len({len(child) for child in level}) != 1:
            return None
        sizes.append(len(level[0]))
        arrays += len(level)
    # Then the innermost hold numbers alone: an array among them would have begun somewhere, too.
    return tuple(sizes) if begun == arrays and np.prod(sizes) == count else None


def _exact(values: np.ndarray, text: memoryview, dtype: np.dtype) -> bool:
    """Whether the numbers as they were read become those of `dtype` in one step."""
    if dtype.kind == "f":
        # Integers alone go to FP32 directly in numpy; here they were doubles before, and may be rounded twice.
        large = dtype.itemsize == 4 and max(values.max(), -values.min()) >= _EXACT
        return not large or _FLOAT.search(text) is not None
    limits = np.iinfo(dtype)
    return dtype.itemsize == 8 or bool(values.min() >= limits.min and values.max() <= limits.max)

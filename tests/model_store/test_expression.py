"""The owner's own metric: what it computes, and that it is a language and not Python."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.expression import FUNCTIONS, Expression, InvalidExpression

REF = {"y": np.array([1.0, 5.0, 2.0], np.float32), "n": np.array(3, np.int64)}
OUT = {"y": np.array([1.0, 4.0, 4.5], np.float32), "n": np.array(3, np.int64)}


def value(text, labels=None):
    return Expression(text).evaluate(REF, OUT, labels or {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("argmax(ref['y']) == argmax(out['y'])", 0.0),
        ("any(isin(top(out['y'], 2), argmax(ref['y'])))", 1.0),
        ("max(abs(ref['y'] - out['y']))", 2.5),
        ("dot(ref['y'], out['y']) / (norm(ref['y']) * norm(out['y']))", 30 / np.sqrt(30 * 37.25)),
        ("ref['n'] == out['n'] and not (last(out['y']) < 2)", 1.0),
        ("mean(where(ref['y'] > 1.5, out['y'], 0))", 8.5 / 3),
        ("percentile(clip(out['y'], 0, 4), 50) ** 2 - -1", 17.0),
        ("2 * mean(out['y']) % 2 + 7 // 2", (2 * 9.5 / 3) % 2 + 3),
        ("min(out['y']) + sum(sort(out['y'])) / size(out['y'])", 1 + 9.5 / 3),
    ],
)
def test_values(text, expected):
    assert value(text) == pytest.approx(expected)


def test_labels_are_those_of_the_only_output_or_named():
    assert value("argmax(out['y']) == labels", {"": np.array(2)}) == 1.0
    assert value("argmax(out['y']) == labels['y']", {"y": np.array(2), "n": np.array(0)}) == 1.0
    with pytest.raises(InvalidExpression, match=r"labels of 'n', 'y': labels\['name'\]"):
        value("mean(out['y']) + labels", {"y": np.array(2), "n": np.array(0)})
    with pytest.raises(InvalidExpression, match="no labels"):
        value("mean(out['y']) + labels")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os').system('id')", "not part of the language"),
        ("ref['y'].tofile('x')", "not part of the language"),
        ("out['y'].__class__", "not part of the language"),
        ("(lambda: 1)()", "not part of the language"),
        ("[x for x in out['y']]", "not part of the language"),
        ("out['y'][0]", "not part of the language"),
        ("out[ref['y']]", "not part of the language"),
        ("'a' * 9", "not part of the language"),
        ("f'{out}'", "not part of the language"),
        ("mean(out['y'], axis=0)", "not part of the language"),
        ("mean(*out['y'])", "not part of the language"),
        ("(x := out['y'])", "not part of the language"),
        ("eval('1')", "no function 'eval'"),
        ("meen(out['y'])", "did you mean 'mean'"),
        ("mean(out)", r"write it with the name of an output"),
        ("mean(output)", "unknown name 'output'"),
        ("1 < mean(out['y']) < 2", "not part of the language"),
        ("mean()", "takes 1 arguments, not 0"),
        ("mean(ref['y'])", "looks at no output of the variant"),
        ("1e999 + mean(out['y'])", "at most 1e300"),
        ("out['y'] ==", "not an expression"),
        ("(" * 60 + "out['y']" + ")" * 60 + "+ 1" * 100, "at most"),
        ("+".join(["out['y']"] * 45), "at most 200 parts"),
        ("-" * 40 + "out['y']", "nested deeper"),
        ("\x00", "not an expression"),
    ],
)
def test_what_is_not_of_the_language_is_refused_before_it_runs(text, words):
    with pytest.raises(InvalidExpression, match=words):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("out['y'] - ref['y']", "gives 3 values a sample"),
        ("mean(out['z'])", r"out\['z'\]: there is no such array; there are 'y', 'n'"),
        ("log(0 * sum(out['y']))", "is -inf on a sample"),
        ("sum(out['y']) * 9 ** 9 ** 9", "is inf on a sample"),
        ("sum(top(out['y'], 4))", "x has 3 entries"),
        ("percentile(out['y'], 200)", "percentile"),
    ],
)
def test_what_has_no_value_is_told(text, words):
    with pytest.raises(InvalidExpression, match=words):
        value(text)


def test_arrays_cannot_be_made_to_grow():
    wide, tall = np.zeros((1, 20_000), np.float32), np.zeros((20_000, 1), np.float32)
    with pytest.raises(InvalidExpression, match="too large"):
        Expression("sum(out['a'] * out['b'])").evaluate({}, {"a": wide, "b": tall}, {})


def test_every_function_takes_what_its_row_says():
    for name, (_, fewest, _) in FUNCTIONS.items():
        arguments = ", ".join(["out['y']", "2", "3"][:fewest])
        text = f"sum({name}({arguments}))"
        assert np.isfinite(value(text)), name

"""Names of models and aliases."""

import pytest

from model_store.errors import InvalidName
from model_store.names import valid_alias, valid_name


@pytest.mark.parametrize("name", ["a", "0", "ResNet-50", "bert_base.uncased", "a" * 128, "1.0"])
def test_good_names_are_themselves(name):
    assert valid_name(name) == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"), ("a" * 129, "129 characters"), ("-a", "begin with"), (".hidden", "begin with"),
        ("..", "begin with"),
        ("a/b", "'/' is not allowed"), ("a b", "' ' is not allowed"), ("a\n", "'\\\\n' is not allowed"),
        ("modèle", "'è' is not allowed"), ("a\0", "is not allowed"), ("stats", "stats-model would do"),
        ("a%2f", "'%' is not allowed"), ("x{y}", "'{', '}'"),
    ],
)  # fmt: skip
def test_bad_names_are_refused_with_the_fault(name, words):
    with pytest.raises(InvalidName, match=words):
        valid_name(name)


@pytest.mark.parametrize("alias", ["champion", "canary", "v2", "stats"])
def test_good_aliases_are_themselves(alias):
    assert valid_alias(alias) == alias


@pytest.mark.parametrize(("alias", "words"), [("2", "v2 would do"), ("", "empty"), ("a/b", "not allowed")])
def test_bad_aliases_are_refused_with_the_fault(alias, words):
    with pytest.raises(InvalidName, match=words):
        valid_alias(alias)

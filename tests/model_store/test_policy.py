"""Policies: every key is documented and refused when wrong, in words that say what would be right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from model_store import expression
from model_store.policy import Gate, InvalidPolicy, Metric, Policy, Search, parse_policy

DOCUMENT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z_.0-9]+)` \| (.+?) \| (.+?) \| (.+?) \| `(.+)` \|$", re.MULTILINE)
FIELDS = {
    f"{prefix}{name}": field
    for prefix, model in {"": Policy, "gate.": Gate, "gate.metric.": Metric, "search.": Search}.items()
    for name, field in model.model_fields.items()
}
ROWS = {row[0]: row for row in ROW.findall(DOCUMENT)}


def test_every_key_is_documented_and_nothing_else():
    assert list(ROWS) == list(FIELDS)


@pytest.mark.parametrize("key", FIELDS)
def test_the_documented_default_is_the_real_one(key):
    told, default = ROWS[key][2].split(" ")[0].strip("`"), FIELDS[key].get_default(call_default_factory=True)
    if default is PydanticUndefined:
        assert told == "required"
    elif isinstance(default, BaseModel):
        assert told == "{}"
        assert default == type(default)()
    else:
        assert json.loads(ROWS[key][2].split("` (")[0].strip("`")) == json.loads(json.dumps(default))


@pytest.mark.parametrize("key", FIELDS)
def test_the_documented_example_is_accepted_and_kept(key):
    value = json.loads(ROWS[key][4])
    path = key.split(".")
    asked = value
    for part in reversed(path):
        asked = {part: asked}
    if path[:2] == ["gate", "metric"] and len(path) == 3:
        metric = asked["gate"]["metric"]
        metric.setdefault("expression", "mean(out['y'])")
        metric |= {} if {"least", "most"} & metric.keys() else {"least": 1}
    found = parse_policy(asked)
    for part in path:
        found = getattr(found, part)
    kept = found.model_dump(exclude_unset=True) if isinstance(found, BaseModel) else found
    assert json.loads(json.dumps(kept)) == value


def test_every_function_of_the_expressions_is_documented():
    (told,) = re.findall(r"and the functions `([a-z0-9\s]+)`", DOCUMENT)
    assert told.split() == sorted(expression.FUNCTIONS)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"objectve": "size"}, "no key 'objectve'; did you mean 'objective'?"),
        ({"gate": {"top_1": 1}}, "no key 'gate.top_1'; did you mean 'top1'?"),
        ({"gate": {"metric": {"expresion": "1"}}}, "did you mean 'expression'?"),
        ({"search": {"smapler": "grid"}}, "did you mean 'sampler'?"),
        ({"gate": {"metric": {"expression": "open('x')", "least": 1}}}, "no function 'open'"),
        ({"gate": {"metric": {"expression": "mean(out['y'])"}}}, "one bound"),
        ({"objective": "size", "second_objective": "size"}, "must differ"),
        ({"search": {"sampler": "nsga2"}}, "needs two objectives"),
        ({"priority": 10}, "policy priority: Input should be less than or equal to 9"),
        ({"techniques": ["magic"]}, "'fusion', 'int8'"),
    ],
)
def test_what_is_wrong_is_told_with_what_would_be_right(asked, words):
    with pytest.raises(InvalidPolicy, match=re.escape(words)):
        parse_policy(asked)


def test_the_rows_of_the_latency_are_measured_too():
    policy = parse_policy({"rows": [8, 1], "latency_rows": 4})
    assert policy.timed_rows == (1, 4, 8)
    assert [policy.rows_of(objective) for objective in ("latency", "throughput", "size")] == [(4,), (8,), (4,)]
    assert parse_policy({"rows": [16, 4, 2]}).rows_of("latency") == (2, 16)
    assert parse_policy({"rows": [4]}).rows_of("latency") == (4,)

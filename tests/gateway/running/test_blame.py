"""Who is to blame for the death of a runner."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.health import Subject
from gateway.running.blame import Part, parts

A, B = Subject("a", "1", "reference"), Subject("b", "1", "reference")
CULPRIT, SUSPECT, BYSTANDER = Part.CULPRIT, Part.SUSPECT, Part.BYSTANDER


def test_what_ran_alone_is_the_culprit_and_what_waited_stood_by():
    assert parts([A, B], begun=1) == [CULPRIT, BYSTANDER]


def test_nobody_is_to_blame_when_nothing_ran():
    assert parts([A, B], begun=0) == [BYSTANDER, BYSTANDER]
    assert parts([], begun=0) == []


def test_one_death_counts_once_against_a_variant_that_ran_twice():
    assert parts([A, A, A], begun=2) == [CULPRIT, SUSPECT, BYSTANDER]


def test_of_two_variants_that_ran_side_by_side_neither_is_called_the_culprit():
    assert parts([A, B, A], begun=2) == [SUSPECT, SUSPECT, BYSTANDER]


@given(st.lists(st.sampled_from([A, B]), max_size=8), st.data())
def test_every_batch_has_a_part_and_only_those_that_ran_a_guilty_one(subjects, data):
    begun = data.draw(st.integers(0, len(subjects)))
    told = parts(subjects, begun)
    assert len(told) == len(subjects)
    assert all((part is BYSTANDER) == (position >= begun) for position, part in enumerate(told))
    assert told.count(CULPRIT) == (len(set(subjects[:begun])) == 1)

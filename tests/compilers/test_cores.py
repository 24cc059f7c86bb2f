"""At which priority and on which cores the children of a compilation run."""

from __future__ import annotations

import pytest

from compilers.cores import TIMED, cores_for, idle_class
from compilers.steps import STEPS


@pytest.mark.parametrize("step", sorted(STEPS))
def test_what_is_timed_is_timed_on_every_core_and_all_else_leaves_half(step):
    expected = None if step in TIMED else (2, 3)
    assert cores_for(step, 19, range(4)) == expected


def test_the_steps_that_are_timed_exist():
    assert STEPS.keys() >= TIMED


@pytest.mark.parametrize("step", ["probe", "transform"])
def test_a_reference_that_somebody_waits_for_is_not_held_back(step):
    assert idle_class(nice=19) and not idle_class(nice=0)
    assert cores_for(step, 0, range(64)) is None


@pytest.mark.parametrize(
    ("usable", "expected"),
    [((0,), None), ((0, 1), None), ((0, 1, 2), None), ((4, 5, 6, 7), (6, 7)), ((9, 1, 3, 5, 7), (5, 7, 9))],
)
def test_half_of_the_cores_are_left_to_serving_where_there_are_four(usable, expected):
    assert cores_for("transform", 19, usable) == expected

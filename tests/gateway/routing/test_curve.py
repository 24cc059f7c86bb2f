"""How many rows a batch may have: read from what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.routing.curve import Curve, measured, most_rows, paying
from model_store.entities import PlanPoint
from tests.gateway.engines import variant


def test_between_measured_points_lie_straight_lines_and_beyond_the_last_every_row_costs_as_much():
    curve = Curve(((1, 0.010), (8, 0.024), (32, 0.096)))
    assert [curve.seconds(rows) for rows in (1, 4, 8, 20, 32, 64)] == pytest.approx(
        [0.010, 0.016, 0.024, 0.060, 0.096, 0.192]
    )


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (((1, 0.040), (8, 0.320), (32, 1.280)), (1,)),  # twice the rows take twice the time
        (((1, 0.010), (8, 0.024), (32, 0.096)), (1, 8)),
        (((1, 6e-6), (8, 20e-6), (32, 80e-6)), (1, 8, 32)),  # the way to the runner costs more than the run
    ],
)
def test_more_rows_pay_while_they_raise_the_rows_a_second(points, expected):
    assert paying(Curve(points)) == expected


def test_the_reference_has_the_figures_the_others_were_held_against():
    fast, slow = variant("m", "fast", {1: 2.0, 8: 2.0}), variant("m", "slow", {8: 0.5})
    reference = variant("m")
    assert measured(reference, [reference, fast, slow]).points == ((1, 0.001), (8, 0.001))
    assert measured(fast, []).points == ((1, 0.0005), (8, 0.0005))
    assert measured(reference, [reference]) is None


def test_a_plan_goes_before_the_evidence():
    made = variant("m", "fast", {1: 2.0, 8: 2.0})
    plain = replace(made.plan, max_rows=64)
    assert most_rows(replace(made, plan=plain), [], 64) == 64, "it was not seen to stop paying"
    assert most_rows(replace(made, plan=replace(plain, buckets=(1, 4))), [], 64) == 4
    assert most_rows(replace(made, plan=replace(plain, max_rows=1)), [], 64) == 1
    assert most_rows(replace(made, plan=None), [], 64) == 64
    points = (PlanPoint(1, 1, 1, 0.01, 100.0), PlanPoint(1, 1, 8, 0.08, 100.0), PlanPoint(2, 1, 8, 0.01, 800.0))
    assert most_rows(replace(made, plan=replace(plain, curve=points)), [], 64) == 1

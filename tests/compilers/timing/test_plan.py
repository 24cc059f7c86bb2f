"""Plans chosen from curves: a pure function of rounds of durations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilers.timing.plan import HOP_S, PAYS, Rounds, Setting, buckets, choose, points, reason, settings
from model_store.entities import PlanPoint

ALL, ONE, PAIR = Setting(2), Setting(1), Setting(1, 2)


def rounds(setting, took_ms, noise=0.02, count=20, seed=0):
    """`took_ms`: of a batch while all instances are busy."""
    random = np.random.default_rng([seed, setting.threads, setting.instances, round(took_ms * 1e3)])
    took = took_ms / 1e3 * random.lognormal(0, noise, count)
    return Rounds(list(took), list(took / setting.instances))


def curves(noise=0.02, seed=0, **by_setting):
    """ALL=[1 row, 8 rows, 32 rows], in milliseconds."""
    names = {"ALL": ALL, "ONE": ONE, "PAIR": PAIR}
    return {
        names[name]: {
            rows: rounds(names[name], ms, noise, seed=seed) for rows, ms in zip((1, 8, 32), took, strict=False)
        }
        for name, took in by_setting.items()
    }


# Two threads take 0.6 of the time of one; two instances do not disturb one another.
REAL = {"ALL": [6, 36, 140], "ONE": [10, 60, 230], "PAIR": [10.5, 62, 240]}
# Nothing to share among threads: two only wait for one another.
TINY = {"ALL": [0.011, 0.02, 0.04], "ONE": [0.008, 0.01, 0.015], "PAIR": [0.016, 0.02, 0.028]}


def test_latency_takes_all_cores_for_one_batch_where_threads_pay():
    assert choose(curves(**REAL), "latency") == ALL


def test_throughput_takes_one_thread_for_each_of_two_batches_where_that_answers_more_rows():
    assert choose(curves(**REAL), "throughput") == PAIR


@pytest.mark.parametrize("objective", ["latency", "size", "memory"])
def test_a_model_too_small_to_be_shared_runs_on_one_thread(objective):
    assert choose(curves(**TINY), objective) == ONE


def test_a_second_instance_that_costs_nobody_time_is_free():
    assert choose(curves(ALL=[10, 60, 230], ONE=[10, 60, 230], PAIR=[10, 60, 230]), "latency") == PAIR


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_runs_of_microseconds_are_not_worth_a_second_instance(objective):
    assert choose(curves(ALL=[0.010, 0.03, 0.06], PAIR=[0.010, 0.03, 0.06]), objective) == ALL


@pytest.mark.parametrize("objective", ["size", "memory"])
def test_whoever_asks_for_little_memory_gets_one_instance(objective):
    assert choose(curves(ALL=[10, 60, 230], ONE=[10, 60, 230], PAIR=[10, 60, 230]), objective) == ALL


@pytest.mark.parametrize("objective", ["latency", "throughput", "size", "memory"])
@pytest.mark.parametrize("seed", range(20))
def test_differences_within_the_noise_leave_the_simple_plan(objective, seed):
    same = curves(noise=0.15, seed=seed, ALL=[10, 60, 230], ONE=[10, 60, 230], PAIR=[20, 120, 460])
    assert choose(same, objective) == ALL


def test_a_gain_at_one_row_does_not_outweigh_a_loss_at_many():
    assert choose(curves(ALL=[10, 40, 120], ONE=[9, 70, 240]), "latency") == ALL


def test_throughput_looks_at_the_largest_batch():
    assert choose(curves(ALL=[6, 36, 140], PAIR=[8, 60, 300]), "throughput") == ALL


def test_of_equal_throughput_the_quicker_batch_serves():
    assert choose(curves(ALL=[10, 60, 232], ONE=[14, 84, 230]), "throughput") == ALL
    assert choose(curves(ALL=[14, 84, 230], ONE=[10, 60, 232]), "throughput") == ONE


def test_a_single_setting_is_chosen_whatever_it_does():
    assert choose(curves(ALL=[10]), "throughput") == ALL


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, [(1, 1)]),
        (2, [(2, 1), (1, 1), (1, 2)]),
        (4, [(4, 1), (2, 1), (1, 1), (2, 2), (1, 4)]),
        (64, [(64, 1), (32, 1), (1, 1), (32, 2), (1, 16)]),
    ],
)
def test_settings_use_one_half_or_all_cores_the_simplest_first(cores, expected):
    assert [(one.threads, one.instances) for one in settings(cores)] == expected


@given(st.integers(1, 256))
def test_no_setting_asks_for_more_threads_than_there_are_cores(cores):
    assert all(one.threads * one.instances <= cores for one in settings(cores))
    assert len(set(settings(cores))) == len(settings(cores))


def shape(*rows_and_seconds):
    return [PlanPoint(1, 1, rows, seconds, rows / seconds) for rows, seconds in rows_and_seconds]


def test_buckets_stop_where_more_rows_gain_less_than_a_tenth():
    assert buckets(shape((1, 0.010), (2, 0.015), (4, 0.024), (8, 0.046), (16, 0.090))) == (1, 2, 4)


def test_a_batch_that_costs_more_a_row_is_no_bucket_but_a_larger_one_may_be():
    assert buckets(shape((1, 0.010), (2, 0.025), (4, 0.012))) == (1, 4)


def test_gains_too_small_one_by_one_count_together():
    assert buckets(shape((1, 0.0100), (2, 0.0188), (4, 0.0350))) == (1, 4)


def test_for_a_model_of_microseconds_the_way_there_and_back_is_what_batches_save():
    flat = shape(*((rows, rows * 5e-6) for rows in (1, 8, 32)))  # the runs themselves gain nothing
    assert buckets(flat) == (1, 8, 32)
    slow = shape(*((rows, rows * 5e-3) for rows in (1, 8, 32)))
    assert buckets(slow) == (1,)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 1.0)), min_size=1, max_size=7, unique_by=lambda p: p[0]))
def test_every_bucket_pays_against_the_one_before(measured):
    curve = shape(*sorted(measured))
    kept = buckets(curve)
    rates = [point.rows / (point.p50_s + HOP_S) for point in curve if point.rows in kept]
    assert kept[0] == curve[0].rows
    assert all(after >= PAYS * before * 0.999 for before, after in itertools.pairwise(rates))


def test_points_tell_what_all_instances_answer_together():
    (one, *_) = points(PAIR, curves(PAIR=[10, 60, 240], noise=0.001)[PAIR])
    assert (one.threads, one.instances, one.rows) == (1, 2, 1)
    assert one.p50_s == pytest.approx(0.010, rel=0.01)
    assert one.rows_per_s == pytest.approx(200, rel=0.01)


def test_the_reason_tells_the_figures_of_the_chosen_and_of_the_others():
    measured = curves(noise=1e-6, **REAL)
    told = reason(measured, ALL, kept=(1, 8), padded=(8,))
    assert told.startswith("2 threads, 1 instance: 6 ms at 1 row, 140 ms at 32 rows; ")
    assert "1 thread, 1 instance: 1.67x slower at 1 row, 0.61x the rows/s at 32" in told
    assert "2 instances of 1 thread: 1.75x slower at 1 row, 1.17x the rows/s at 32" in told
    assert "more than 8 rows at a time gain less than 10 %" in told
    assert told.endswith("filling up to 8 rows is faster than fewer")

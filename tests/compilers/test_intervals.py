import numpy as np
import pytest

from compilers import intervals


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [  # R: prop.test(x, n, correct=FALSE)$conf.int
        (95, 100, 0.88825, 0.97846),
        (10, 10, 0.72246, 1.0),
        (0, 20, 0.0, 0.16113),
        (507, 512, 0.97737, 0.99582),
    ],
)
def test_wilson_gives_the_known_intervals(successes, trials, lower, upper):
    assert intervals.wilson(successes, trials) == pytest.approx((lower, upper), abs=5e-5)


def test_a_perfect_score_needs_the_known_number_of_trials():
    assert intervals.trials_needed(1.0, 0.98) == 189
    assert intervals.trials_needed(1.0, 0.985) == 253
    assert intervals.wilson(188, 188)[0] < 0.98 <= intervals.wilson(189, 189)[0]


def test_the_number_that_settles_is_the_fewest_also_where_it_would_exclude():
    for share, bound in ((0.99, 0.98), (0.97, 0.98), (0.5, 0.98)):
        needed = intervals.trials_needed(share, bound)
        lower, upper = intervals.wilson(share * needed, needed)
        assert lower >= bound or upper < bound
        lower, upper = intervals.wilson(share * (needed - 1), needed - 1)
        assert lower < bound <= upper


def test_a_share_on_the_bound_is_never_settled():
    with pytest.raises(ValueError, match="never settles"):
        intervals.trials_needed(0.98, 0.98)


def test_the_bootstrap_of_a_paired_drop_agrees_with_the_normal_interval():
    random = np.random.default_rng(1)
    reference = random.random(2000) < 0.9
    variant = reference ^ (random.random(2000) < 0.05)
    difference = reference.astype(float) - variant
    half = 1.96 * difference.std() / np.sqrt(2000)
    lower, upper = intervals.paired_drop(reference, variant)
    assert (lower, upper) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.0015)


def test_equal_answers_do_not_drop():
    answers = np.ones(50, bool)
    assert intervals.paired_drop(answers, answers) == (0.0, 0.0)


def test_the_interval_of_a_ratio_holds_the_ratio_about_95_times_in_100():
    random, held = np.random.default_rng(2), 0
    for _ in range(200):
        above, below = random.lognormal(np.log(2.0), 0.2, 25), random.lognormal(0.0, 0.2, 25)
        _, lower, upper = intervals.ratio_of_medians(above, below)
        held += lower <= 2.0 <= upper
    assert held >= 182  # the percentile bootstrap of a median is a little wide or a little narrow, never far off


def test_a_ratio_of_constant_times_is_exact():
    assert intervals.ratio_of_medians(np.full(5, 3.0), np.full(5, 2.0)) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("successes", "trials", "tail"),
    [(0, 12, 0.000244140625), (2, 18, 0.000656128), (4, 24, 0.000771940), (6, 12, 0.612793)],  # R: pbinom(x, n, 0.5)
)
def test_the_tail_of_even_odds_is_the_known_one(successes, trials, tail):
    assert intervals.at_most(successes, trials) == pytest.approx(tail, rel=1e-4)

"""Histograms in one pass, and the ranges that come of them."""

import numpy as np
import pytest

from compilers.calibration.collectors import COUNTED, TensorCollector
from compilers.calibration.histogram import BINS, Histogram, centres
from compilers.calibration.ranges import CALIBRATORS


def collected(*runs):
    collector = TensorCollector()
    for run in runs:
        collector.add(np.asarray(run, np.float32))
    return collector.seen()


def sqnr_after(values, low, high):
    scale = (max(high, 0) - min(low, 0)) / 255
    zero = np.rint(-min(low, 0) / scale)
    rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    return 10 * np.log10(np.mean(values**2) / np.mean((values - rounded) ** 2))


def gaussian(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def test_a_histogram_grows_to_hold_what_comes_and_loses_no_count():
    histogram = Histogram()
    parts = [gaussian(1000, seed) * 10**seed for seed in range(4)]
    for part in parts:
        histogram.add(part)
    everything = np.concatenate(parts)
    assert histogram.counts.sum() == everything.size
    assert np.abs(everything).max() <= histogram.reach <= 2 * np.abs(everything).max()
    expected, _ = np.histogram(everything.astype(np.float64), BINS, (-histogram.reach, histogram.reach))
    assert np.abs(expected - histogram.counts).sum() <= 4  # a value on an edge may fall to either side
    assert centres(histogram.reach)[0] == pytest.approx(-histogram.reach * (1 - 1 / BINS))


def test_the_order_of_runs_does_not_matter_once_the_reach_is_the_same():
    parts = [np.array([8.0, -1.0]), gaussian(500), gaussian(500, 1)]
    one, other = Histogram(), Histogram()
    for part in parts:
        one.add(part)
    for part in (parts[0], parts[2], parts[1]):
        other.add(part)
    np.testing.assert_array_equal(one.counts, other.counts)


def test_extremes_are_those_of_all_values_though_the_histogram_samples_a_large_tensor():
    large = np.zeros(5 * COUNTED, np.float32)
    large[1] = 7
    seen = collected(large)
    assert (seen.low, seen.high) == (0, 7)
    assert COUNTED / 2 < seen.counts.sum() <= COUNTED


def test_infinities_of_a_mask_have_no_place_in_a_range():
    seen = collected([-np.inf, -1, 2], [np.nan, 0.5, -np.inf])
    assert (seen.low, seen.high, seen.counts.sum()) == (-1, 2, 3)
    assert collected([-np.inf]) is None
    assert collected([]) is None


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_every_calibrator_stays_within_what_was_seen_and_keeps_most_of_it(name, scale):
    values = np.maximum(gaussian(20_000), -0.5) * np.float32(scale)
    low, high = CALIBRATORS[name](collected(*np.split(values, 4)))
    assert values.min() <= low < 0 < high <= values.max() * 1.0001
    assert sqnr_after(values, low, high) > 30


@pytest.mark.parametrize("name", CALIBRATORS)
def test_every_calibrator_bears_a_tensor_that_is_always_the_same(name):
    assert CALIBRATORS[name](collected(np.zeros(10))) == (0, 0)
    low, high = CALIBRATORS[name](collected(np.full(10, 3.0)))
    assert low <= 3 <= high * 1.01


@pytest.mark.parametrize("name", ["percentile", "entropy"])
@pytest.mark.parametrize("one_sided", [False, True])
def test_clipping_beats_the_extremes_where_few_values_lie_far_out(name, one_sided):
    values = gaussian(200_000)
    values = np.abs(values) if one_sided else values
    values[::40_000] = 60.0  # 5 of 200,000
    seen = collected(*np.split(values, 8))
    usual = values[np.abs(values) < 50]
    trusting = sqnr_after(usual, *CALIBRATORS["minmax"](seen))
    assert sqnr_after(usual, *CALIBRATORS[name](seen, 99.99)) > trusting + 6


@pytest.mark.parametrize("kind", ["normal", "laplace", "heavy", "one-sided"])
def test_mse_has_the_least_squared_error_of_all(kind):
    random = np.random.default_rng(3)
    values = {
        "normal": random.standard_normal(100_000),
        "laplace": random.laplace(size=100_000),
        "heavy": random.standard_t(3, size=100_000),
        "one-sided": np.maximum(random.laplace(size=100_000), 0),
    }[kind].astype(np.float32)
    seen = collected(*np.split(values, 8))
    reached = {name: sqnr_after(values, *calibrator(seen, 99.99)) for name, calibrator in CALIBRATORS.items()}
    assert reached["mse"] > max(reached.values()) - 0.2
    if kind == "heavy":
        assert reached["mse"] > reached["minmax"] + 0.5


def test_the_moving_average_is_not_widened_by_one_strange_run():
    runs = [gaussian(1000, seed) for seed in range(20)] + [np.array([-500.0, 500.0])]
    seen = collected(*runs)
    low, high = CALIBRATORS["moving-average"](seen)
    assert -40 < low < -2 and 2 < high < 40
    assert CALIBRATORS["minmax"](seen) == (-500, 500)


def test_a_lower_percentile_cuts_more():
    seen = collected(gaussian(100_000))
    widths = [high - low for low, high in (CALIBRATORS["percentile"](seen, p) for p in (99.0, 99.9, 99.99))]
    assert widths == sorted(widths)
    assert widths[0] == pytest.approx(2 * 2.576, rel=0.03)

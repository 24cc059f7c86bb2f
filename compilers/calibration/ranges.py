"""From what was seen of a tensor to the range its 8 bits span: five answers, from trusting to doubtful.

minmax trusts every value; moving-average the usual run; percentile, entropy and mse clip what is rare so that the rest
gets finer steps (Krishnamoorthi, "Quantizing deep convolutional networks", 2018; Migacz, "8-bit inference with
TensorRT", 2017, for entropy; Choukroun et al., "Low-bit quantization of neural networks", 2019, for mse).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compilers.calibration.histogram import BINS, centres

Range = tuple[float, float]

LEVELS = 255
PERCENTILE = 99.99
LEAST_COUNT, FEWEST_BINS = 32, 512


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """What was seen of one tensor. `mean_low`, `mean_high`: averages over the runs of each run's extremes.

    counts: [BINS] over [-reach, reach], of a sample of the values where a run holds very many.
    """

    low: float
    high: float
    mean_low: float
    mean_high: float
    reach: float
    counts: np.ndarray


def minmax(seen: TensorStatistics, percentile: float = PERCENTILE) -> Range:
    """The extremes."""
    return seen.low, seen.high


def moving_average(seen: TensorStatistics, percentile: float = PERCENTILE) -> Range:
    """The average of each run's extremes: one strange run does not widen the range for all."""
    return seen.mean_low, seen.mean_high


def percentile(seen: TensorStatistics, percentile: float = PERCENTILE) -> Range:
    """What `percentile` percent of the values lie within, as many cut off below as above."""
    total = int(seen.counts.sum())
    if not total:
        return seen.low, seen.high
    share = np.cumsum(seen.counts) / total
    cut, width = (100.0 - percentile) / 200.0, 2 * seen.reach / BINS
    first = int(np.searchsorted(share, cut, side="right"))
    last = int(np.searchsorted(share, 1.0 - cut, side="left"))
    return max(seen.low, -seen.reach + width * first), min(seen.high, -seen.reach + width * (last + 1))


def entropy(seen: TensorStatistics, percentile: float = PERCENTILE) -> Range:
    """The clip whose quantized histogram tells least apart from the true one (Kullback-Leibler).

    Candidates clip symmetrically around zero; a one-sided tensor is clipped on its one side.
    """
    counts = _dense(seen.counts)
    half = len(counts) // 2
    if not counts.any():
        return seen.low, seen.high
    found, least = half, np.inf
    one_sided = seen.low >= 0 or seen.high <= 0
    for reach in np.unique(np.geomspace(LEVELS if one_sided else LEVELS // 2 + 1, half, 96).astype(int)):
        clipped = counts[half - reach : half + reach].astype(np.float64)
        outside = (counts[: half - reach].sum(), counts[half + reach :].sum())
        told = _divergence(clipped, *outside, levels=2 * LEVELS if one_sided else LEVELS)
        if told < least:
            found, least = int(reach), told
    limit = seen.reach * found / half
    return max(seen.low, -limit), min(seen.high, limit)


def mse(seen: TensorStatistics, percentile: float = PERCENTILE) -> Range:
    """The clip of least squared error: rounding within against clipping beyond, both ends searched."""
    middles, counts = centres(seen.reach), seen.counts.astype(np.float64)
    if not counts.sum():
        return seen.low, seen.high
    moments = np.stack([counts, counts * middles, counts * middles**2])
    below = np.concatenate([np.zeros((3, 1)), np.cumsum(moments, axis=1)], axis=1)
    above = below[:, -1:] - below
    width = 2 * seen.reach / BINS
    # What is exactly zero rounds without an error.
    moving = counts.sum() - counts[BINS // 2]
    shrink = np.geomspace(1.0, 0.01, 64)
    lows = shrink * min(seen.low, 0.0) if seen.low < 0 else np.zeros(1)
    highs = shrink * max(seen.high, 0.0) if seen.high > 0 else np.zeros(1)

    def clipping(limits: np.ndarray, sums: np.ndarray) -> np.ndarray:
        edge = np.clip(np.rint((limits + seen.reach) / width).astype(int), 0, BINS)
        error: np.ndarray = sums[2, edge] - 2 * limits * sums[1, edge] + limits**2 * sums[0, edge]
        return error

    rounding = ((highs[None, :] - lows[:, None]) / LEVELS) ** 2 / 12 * moving
    error = clipping(lows, below)[:, None] + clipping(highs, above)[None, :] + rounding
    low, high = np.unravel_index(int(np.argmin(error)), error.shape)
    return float(lows[low]), float(highs[high])


CALIBRATORS: dict[str, Callable[..., Range]] = {
    "minmax": minmax,
    "moving-average": moving_average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def _dense(counts: np.ndarray) -> np.ndarray:
    """The histogram with bins merged until they hold enough for their differences to mean something.

    Zero is always on the grid: what is exactly there (a Relu's other half) is counted as its neighbour is.
    """
    counts = counts.copy()
    counts[BINS // 2] = min(counts[BINS // 2], counts[BINS // 2 + 1])
    while len(counts) > FEWEST_BINS and counts.sum() < LEAST_COUNT * np.count_nonzero(counts):
        counts = counts.reshape(-1, 2).sum(axis=1)
    return counts


def _divergence(kept: np.ndarray, below: float, above: float, levels: int) -> float:
    """How much is lost when the bins `kept` become `levels` levels; what lies outside sits in the outermost bins."""
    true = kept.copy()
    true[0] += below
    true[-1] += above
    groups = np.minimum(np.arange(len(kept)) * levels // len(kept), levels - 1)
    filled = true > 0
    mass = np.bincount(groups, weights=kept, minlength=levels)
    spread = np.bincount(groups, weights=filled, minlength=levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        told = np.where(filled, (mass / spread)[groups], 0.0)
    true, told = true / true.sum(), told / max(told.sum(), 1e-30)
    both = (true > 0) & (told > 0)
    lost = float(true[(true > 0) & (told <= 0)].sum())
    return float(np.sum(true[both] * np.log(true[both] / told[both]))) + 20.0 * lost

"""Confidence intervals: what a number measured on few samples, or in a noisy minute, allows one to claim.

All intervals are two-sided 95 % unless another `z` is given; all bootstraps are seeded, so a verdict can be repeated.
"""

from __future__ import annotations

import math

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 4000


def wilson(successes: float, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927): sound for few trials and for 100 % success."""
    if trials <= 0:
        return 0.0, 1.0
    share, spread = successes / trials, z**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def at_most(successes: int, trials: int) -> float:
    """How probable so few successes, or fewer, are where each trial has even odds (the sign test's tail)."""
    return math.fsum(math.ldexp(math.comb(trials, count), -trials) for count in range(successes + 1))


def trials_needed(share: float, bound: float) -> int:
    """The fewest trials at which a proportion `share` settles whether it exceeds `bound`: either way the interval
    no longer holds it. Raises ValueError where no number does (share equals the bound).
    """
    if share == bound or not 0 <= bound < 1:
        raise ValueError(f"a share of {share} never settles a bound of {bound}")

    def settled(trials: int) -> bool:
        lower, upper = wilson(share * trials, trials)
        return lower >= bound or upper < bound

    most = 1
    while not settled(most):
        most *= 2
    least = most // 2 + 1
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if settled(middle) else (middle + 1, most)
    return most


def mean(values: np.ndarray, z: float = Z95) -> tuple[float, float, float]:
    """(mean, lower, upper) of a figure known per sample: Wilson's interval for truths, else the normal one."""
    count, middle = len(values), float(values.mean())
    if ((values == 0) | (values == 1)).all():
        return (middle, *wilson(float(values.sum()), count, z))
    half = z * float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return middle, max(middle - half, -1e300), min(middle + half, 1e300)


def paired_drop(reference: np.ndarray, variant: np.ndarray) -> tuple[float, float]:
    """Bootstrap interval of mean(reference) - mean(variant), both 0/1 per sample and paired.

    The difference of a pair is one of -1, 0, 1, so resampling the pairs is one multinomial draw of three counts.
    """
    pairs = len(reference)
    difference = reference.astype(np.int64) - variant.astype(np.int64)
    counts = np.array([(difference == value).sum() for value in (-1, 0, 1)])
    draws = np.random.default_rng(0).multinomial(pairs, counts / pairs, size=RESAMPLES)
    lower, upper = np.percentile((draws[:, 2] - draws[:, 0]) / pairs, (2.5, 97.5))
    return float(lower), float(upper)


def ratio_of_medians(above: np.ndarray, below: np.ndarray) -> tuple[float, float, float]:
    """median(above) / median(below) with its bootstrap interval: (ratio, lower, upper). Pairs are resampled together.

    `above[i]` and `below[i]` are of the same round, minutes of a noisy machine that both lived through.
    """
    picks = np.random.default_rng(0).integers(0, len(above), size=(RESAMPLES, len(above)))
    ratios = np.median(above[picks], axis=1) / np.median(below[picks], axis=1)
    lower, upper = np.percentile(ratios, (2.5, 97.5))
    return float(np.median(above) / np.median(below)), float(lower), float(upper)

"""A histogram whose range grows with what it meets, so that one pass over the samples is enough.

Bins are symmetric around zero. A value outside doubles the reach: neighbouring bins merge in pairs, which is exact, so
the counts do not depend on the order of the data but for the reach of the first.
"""

from __future__ import annotations

import numpy as np

BINS = 4096
"""At least a quarter of them lie between zero and the largest value: 1024 for a range of 255 steps."""

SMALLEST_REACH = 1e-30


class Histogram:
    """Counts of float values in BINS equal bins over [-reach, reach]."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.reach = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count finite `values` [n]."""
        if not values.size:
            return
        largest = max(float(values.max()), -float(values.min()), SMALLEST_REACH)
        self.reach = self.reach or largest
        while self.reach < largest:
            self._double()
        places = (values.astype(np.float64) + self.reach) * (BINS / (2 * self.reach))
        self.counts += np.bincount(np.minimum(places.astype(np.int32), BINS - 1), minlength=BINS)

    def _double(self) -> None:
        merged = self.counts.reshape(BINS // 2, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[BINS // 4 : BINS // 4 + BINS // 2] = merged
        self.reach *= 2


def centres(reach: float) -> np.ndarray:
    """The middle of each bin [BINS]."""
    width = 2 * reach / BINS
    middle: np.ndarray = -reach + width * (np.arange(BINS) + 0.5)
    return middle

"""What is kept of a tensor while it streams by: a few numbers and a histogram, or sums over its rows."""

from __future__ import annotations

import numpy as np

from compilers.calibration.histogram import Histogram
from compilers.calibration.products import CHUNK_BYTES, View
from compilers.calibration.ranges import TensorStatistics

COUNTED = 1 << 18
"""Values of ROWS samples' tensor that enter the histogram at most, evenly spaced; the extremes are those of all."""

GRAM_DEPTH = 6144
"""The deepest product whose Gram matrix is kept: 151 MB in float32."""


def gram_bytes(view: View) -> int:
    """What H of a product takes; 0 where it is too deep."""
    return 4 * view.groups * view.depth**2 if view.depth <= GRAM_DEPTH else 0


class TensorCollector:
    """Extremes, average extremes and a histogram of one float tensor.

    parts: arrays that come one after another and count as one, as if they had been added together.
    """

    def __init__(self, parts: int = 1) -> None:
        self._parts, self._added = parts, 0
        self._lows: list[float] = []
        self._highs: list[float] = []
        self._histogram = Histogram()

    def add(self, array: np.ndarray) -> None:
        values = array.reshape(-1)
        goes_on = self._added % self._parts != 0 and bool(self._lows)
        self._added += 1
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):  # a mask's minus infinity has no place in a range
            values = values[np.isfinite(values)]
            if not values.size:
                return
            low, high = float(values.min()), float(values.max())
        if goes_on:
            self._lows[-1], self._highs[-1] = min(self._lows[-1], low), max(self._highs[-1], high)
        else:
            self._lows.append(low)
            self._highs.append(high)
        # An odd step meets every channel of a tensor whose channels are a power of two.
        self._histogram.add(values[:: -(-values.size * self._parts // COUNTED) | 1])

    def seen(self) -> TensorStatistics | None:
        """None where no finite value came by."""
        if not self._lows:
            return None
        return TensorStatistics(
            low=min(self._lows),
            high=max(self._highs),
            mean_low=float(np.mean(self._lows)),
            mean_high=float(np.mean(self._highs)),
            reach=self._histogram.reach,
            counts=self._histogram.counts,
        )


class ProductCollector:
    """Sums over the rows X that a product sees: their mean, each channel's extremes, and H = sum of X'X.

    H is summed in float32, a chunk of rows at a time: rounding is far below the damping that every use of it adds.
    """

    def __init__(self, view: View, *, gram: bool) -> None:
        self.view = view
        self.rows = 0
        self.sum: np.ndarray | None = None
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None
        self.gram: np.ndarray | None = None
        self._wanted = gram and view.depth <= GRAM_DEPTH
        self._waiting: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> None:
        channels = self.view.by_channel(array)
        if not channels.size:
            return
        low, high = channels.min(axis=1), channels.max(axis=1)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        total, rows = self.view.sums(array)
        self.sum = total if self.sum is None else self.sum + total
        self.rows += rows
        for chunk in self.view.chunks(array) if self._wanted else ():
            self._waiting.append(chunk)
            # Adding to H costs as much as a product of K rows: so many are gathered first.
            if sum(rows.nbytes for rows in self._waiting) >= min(CHUNK_BYTES, gram_bytes(self.view)):
                self._sum_up()

    def close(self) -> None:
        """Nothing more will be added."""
        if self._waiting:
            self._sum_up()

    def _sum_up(self) -> None:
        rows = np.concatenate(self._waiting, axis=1)
        self._waiting = []
        product = rows.transpose(0, 2, 1) @ rows
        if self.gram is None:
            self.gram = product
        else:
            self.gram += product

"""What a model's tensors hold on the owner's samples, gathered in a stream and kept as one small file.

One pass over the samples (`calibrate`) serves every technique: ranges for Q/DQ by any calibrator, the largest value a
channel takes (SmoothQuant), the mean input of every weight (bias correction) and, where asked for, its Gram matrix
(GPTQ rounding, pruning, low rank). Memory is bounded by the largest tensor of one run, never by the number of samples.

A name names a value: a pass that changes what a tensor holds must rename it, and then statistics by name stay true for
everything that is made of the calibrated model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np


class Stacked(Protocol):
    """Samples one after another along the first axis: an array, or rows in a file that are read when sliced."""

    @property
    def ndim(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


Calibration = Mapping[str, Stacked]
"""Samples by input name; first axis: sample (of a fixed batch: as many entries as the model takes at once a sample)."""

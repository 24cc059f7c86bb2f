"""The int8 grid a constant weight is rounded to: its scales, and which point of the grid each entry goes to.

Symmetric (Jacob et al., 2018): zero stays zero, and integer kernels need no correction for a weight's zero point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compilers.calibration.products import Product
from compilers.calibration.statistics import Statistics
from compilers.passes.gptq import gptq

LIMIT, REDUCED_LIMIT = 127, 64
"""The largest code; reduced where sums of two products of 8 bits overflow 16 (CPUs without VNNI)."""

ROUNDINGS = ("nearest", "gptq")


@dataclass(frozen=True, slots=True)
class Gridded:
    """A weight on its grid. value: float32, the weight's shape, every entry a multiple of its scale [outputs or 1]."""

    product: Product
    value: np.ndarray
    scale: np.ndarray
    per_channel: bool


def on_grid(
    product: Product, weight: np.ndarray, seen: Statistics, *, per_channel: bool, reduce_range: bool, rounding: str
) -> Gridded:
    """Round `weight`; `gptq` falls back to the nearest where a product is too deep for a Gram matrix."""
    limit = REDUCED_LIMIT if reduce_range else LIMIT
    matrix = product.matrix(weight)  # [groups, outputs, K]
    groups, outputs, _ = matrix.shape
    largest = np.abs(matrix).max(axis=2) if per_channel else np.full((groups, outputs), np.abs(matrix).max())
    scale = (largest / limit).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1.0
    gram = seen.gram(product.view) if rounding == "gptq" else None
    if gram is None:
        codes = np.clip(np.rint(matrix / scale[:, :, None]), -limit, limit)
    else:
        codes = np.stack([gptq(matrix[g], gram[g], scale[g][:, None], -limit, limit) for g in range(groups)])
    value = product.weight_of((codes * scale[:, :, None]).astype(np.float32), weight.shape)
    return Gridded(product, value, scale.reshape(-1) if per_channel else scale.reshape(-1)[:1], per_channel)

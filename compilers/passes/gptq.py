"""Round a weight so that its *outputs* stay near, not its entries: GPTQ (Frantar et al., 2023, arXiv:2210.17323).

Entries are rounded one input at a time; what rounding one of them breaks in the outputs is repaired by moving those
not rounded yet, along the inverse of H = X'X. Where inputs are correlated this beats rounding to the nearest by far;
where they are not, H is diagonal and it *is* rounding to the nearest.
"""

from __future__ import annotations

import numpy as np

DAMPING = 0.01
"""Of the mean of H's diagonal, added to it: inputs that samples never moved must not move the weight."""

BLOCK = 128


def gptq(weight: np.ndarray, gram: np.ndarray, scale: np.ndarray, limit: int, damping: float = DAMPING) -> np.ndarray:
    """Whole numbers q, |q| <= limit, with scale * q near `weight` as seen through `gram`.

    weight [O, K], gram [K, K], scale [O]; float64 inside. Inputs are taken in the order of their energy, largest first.
    Raises ValueError where the shapes do not fit.
    """
    outputs, depth = weight.shape
    if gram.shape != (depth, depth) or scale.shape != (outputs,):
        raise ValueError(f"weight {weight.shape} does not fit gram {gram.shape} and scale {scale.shape}")
    energy = np.diagonal(gram).astype(np.float64)
    order = np.argsort(-energy, kind="stable")
    work = weight[:, order].astype(np.float64)
    damped = gram[np.ix_(order, order)].astype(np.float64)
    damped[np.diag_indices(depth)] += damping * max(float(energy.mean()), 1e-12)
    # Upper triangular U with inv(H) = U'U: row j holds how the inputs after j answer for j.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    step = scale.astype(np.float64)
    rounded = np.empty_like(work)
    for start in range(0, depth, BLOCK):
        stop = min(start + BLOCK, depth)
        errors = np.empty((outputs, stop - start))
        for j in range(start, stop):
            rounded[:, j] = np.clip(np.rint(work[:, j] / step), -limit, limit)
            error = (work[:, j] - rounded[:, j] * step) / upper[j, j]
            work[:, j + 1 : stop] -= np.outer(error, upper[j, j + 1 : stop])
            errors[:, j - start] = error
        work[:, stop:] -= errors @ upper[start:stop, stop:]
    answer = np.empty_like(rounded)
    answer[:, order] = rounded
    return answer

"""Round a weight so that its *outputs* stay near, not its entries: GPTQ (Frantar et al., 2023, arXiv:2210.17323).

Entries are rounded one input at a time; what rounding one of them breaks in the outputs is repaired by moving those
not rounded yet, along the inverse of H = X'X. Where inputs are correlated this beats rounding to the nearest by far;
where they are not, H is diagonal and it *is* rounding to the nearest.

Written as LDLQ (Chee et al., 2023, arXiv:2307.13304, which proves both the same): H = N D N' with N upper triangular of
unit diagonal, and entry k is rounded after the errors before it were added by column k of N. So H is factored once and
never inverted (a seventh of the arithmetic), and errors are added a block of inputs at a time, by one product.
"""

from __future__ import annotations

import numpy as np

DAMPING = 0.01
"""Of the mean of H's diagonal, added to it: inputs that samples never moved must not move the weight."""

BLOCK = 128

Bound = int | np.ndarray


def gptq(
    weight: np.ndarray, gram: np.ndarray, scale: np.ndarray, least: Bound, most: Bound, damping: float = DAMPING
) -> np.ndarray:
    """Whole numbers q, least <= q <= most, with scale * q near `weight` as seen through `gram`.

    weight [O, K]; gram [K, K]; scale, least and most: broadcast to [O, K], so a scale may be of an output [O, 1] or of
    a block of its inputs. float64 inside. Inputs are taken in the order of their energy, largest first. Raises
    ValueError where the shapes do not fit.
    """
    depth = weight.shape[1]
    if gram.shape != (depth, depth):
        raise ValueError(f"weight {weight.shape} does not fit gram {gram.shape}")
    try:
        steps, lows, highs = (np.broadcast_to(part, weight.shape) for part in (scale, least, most))
    except ValueError as exc:
        raise ValueError(f"scale {scale.shape} and bounds do not fit weight {weight.shape}") from exc
    order = np.argsort(-np.diagonal(gram), kind="stable")
    wanted, steps, lows, highs = (part[:, order] for part in (weight, steps, lows, highs))
    wanted, steps = wanted.astype(np.float64), steps.astype(np.float64)
    unit = _unit_upper(gram[np.ix_(order, order)].astype(np.float64), damping)
    codes, errors = np.empty_like(wanted), np.empty_like(wanted)
    for start in range(0, depth, BLOCK):
        stop = min(start + BLOCK, depth)
        moved = wanted[:, start:stop] + errors[:, :start] @ unit[:start, start:stop]
        for k in range(start, stop):
            entry = moved[:, k - start] + errors[:, start:k] @ unit[start:k, k]
            codes[:, k] = np.clip(np.rint(entry / steps[:, k]), lows[:, k], highs[:, k])
            errors[:, k] = wanted[:, k] - codes[:, k] * steps[:, k]
    answer = np.empty_like(codes)
    answer[:, order] = codes
    return answer


def _unit_upper(gram: np.ndarray, damping: float) -> np.ndarray:
    """N of `gram` + damping = N D N': a Cholesky factor from the last input to the first, its columns over their
    diagonal."""
    depth = len(gram)
    gram[np.diag_indices(depth)] += damping * max(float(np.diagonal(gram).mean()), 1e-12)
    upper = np.ascontiguousarray(np.linalg.cholesky(gram[::-1, ::-1])[::-1, ::-1])
    return np.asarray(upper / np.diagonal(upper))

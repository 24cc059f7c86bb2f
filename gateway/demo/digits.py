"""The demo's data: scikit-learn's handwritten digits, 1,797 real 8x8 images, split once and for all.

The first 1,000 of a fixed permutation train the demo's model and are what it is registered with as samples; the other
797 are held out, seen by nothing but the final count of right answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDE = 32
TRAINING = 1000
MODEL = Path(__file__).with_name("digits.onnx")
"""The trained network: `image` [N, 1, 32, 32] float32 in [-1, 1] -> `logits` [N, 10]. Made by `train_digits`."""


@dataclass(frozen=True, slots=True)
class Images:
    """`images`: [N, 1, 32, 32] float32 in [-1, 1]; `labels`: [N] int64, the digit drawn."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Digits:
    training: Images
    held_out: Images


def load() -> Digits:
    """Read the data set that scikit-learn ships (no download) and split it."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = prepare(pixels.reshape(-1, 8, 8))[order], labels[order].astype(np.int64)
    return Digits(
        Images(images[:TRAINING], labels[:TRAINING]),
        Images(images[TRAINING:], labels[TRAINING:]),
    )


def prepare(pixels: np.ndarray) -> np.ndarray:
    """[N, 8, 8] with ink 0..16 -> [N, 1, 32, 32] float32 in [-1, 1], enlarged bilinearly."""
    enlarge = _bilinear(pixels.shape[-1], SIDE)
    images: np.ndarray = enlarge @ (pixels / 16.0) @ enlarge.T
    return (images[:, None] * 2 - 1).astype(np.float32)


def _bilinear(source: int, target: int) -> np.ndarray:
    """The [target, source] matrix of bilinear enlargement along one axis, pixel centres aligned, edges clamped."""
    where = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    overlap: np.ndarray = np.maximum(0.0, 1.0 - np.abs(where[:, None] - np.arange(source)))
    return overlap

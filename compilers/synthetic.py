"""Made-up inputs that a model accepts: to probe it, to time it, to compare what must be equal on *any* input.

Never evidence for a lossy variant: noise does not excite a network as its real inputs do, so agreement on it proves
nothing (and calibrating on it clips in production).

What is valid cannot be read from a signature (an INT64 may be a token, an index, a mask), so there is a ladder of
guesses, from the most telling to the most harmless; the probe climbs down until the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_store.datatypes import numpy_dtype
from model_store.entities import Signature, TensorSpec

Tensors = dict[str, np.ndarray]

_ONES = ("mask",)
_ZEROS = ("token_type", "segment", "past", "offset")


@dataclass(frozen=True, slots=True)
class Guess:
    """One rung: the length of every dynamic axis but the first, and the least value an integer does not reach."""

    length: int
    below: int
    constant: bool = False


LADDER: tuple[Guess, ...] = (
    Guess(length=16, below=10),
    Guess(length=32, below=2),
    Guess(length=64, below=10),
    Guess(length=224, below=10),
    Guess(length=8, below=2),
    Guess(length=4, below=2),
    Guess(length=1, below=2),
    Guess(length=16, below=1, constant=True),
    Guess(length=1, below=1, constant=True),
)
"""16 suits sequences, 32 to 224 images; the first rungs need valid indices below 10, the last are zeros and ones."""


def inputs(signature: Signature, rows: int, guess: Guess, seed: int = 0) -> Tensors:
    """Inputs for one run: `rows` on a dynamic first axis; the same seed gives the same values."""
    random = np.random.default_rng(seed)
    return {
        spec.name: _tensor(spec, _shape(spec.shape, rows, guess.length), guess, random) for spec in signature.inputs
    }


def _shape(shape: Sequence[int], rows: int, length: int) -> tuple[int, ...]:
    return tuple((rows if axis == 0 else length) if size == -1 else size for axis, size in enumerate(shape))


def _tensor(spec: TensorSpec, shape: tuple[int, ...], guess: Guess, random: np.random.Generator) -> np.ndarray:
    if spec.datatype == "BYTES":
        texts = np.empty(shape, dtype=object)
        texts.reshape(-1)[:] = [
            b"1" if guess.constant else b"%d" % value for value in random.integers(0, 100, texts.size)
        ]
        return texts
    dtype, name = numpy_dtype(spec.datatype), spec.name.lower()
    if spec.datatype == "BOOL" or any(word in name for word in _ONES):
        return np.ones(shape, dtype)
    if dtype.kind in "iu":
        if any(word in name for word in _ZEROS):
            return np.zeros(shape, dtype)
        # A byte is a pixel, in all likelihood; wider integers index something of unknown size.
        below = 256 if spec.datatype == "UINT8" and not guess.constant else guess.below
        return random.integers(0, below, shape).astype(dtype)
    return np.ones(shape, dtype) if guess.constant else random.standard_normal(shape).astype(dtype)

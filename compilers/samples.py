"""The owner's samples: read from their npz, split once and for all into calibration and validation.

What calibrates a variant never validates it. The split depends on the number of samples alone, so every step of every
job, on every machine, draws the same line.

A *sample* is what one request could hold: one row of every input whose first axis is dynamic, and as much as the
model takes at once where it is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model_store.datatypes import numpy_dtype
from model_store.entities import Signature, TensorSpec

CALIBRATION_SHARE, CALIBRATION_MOST = 0.3, 300
"""At most 30 % and at most 300 samples calibrate (NNCF's own subset size); all the others validate."""

LABELS = "labels"

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices into the samples, disjoint."""

    calibration: np.ndarray
    validation: np.ndarray


def split(count: int) -> Split:
    """Draw `count` samples apart, deterministically: a shuffle of fixed seed, so order in the file does not matter."""
    order = np.random.default_rng(20_240_817).permutation(count)
    calibration = min(CALIBRATION_MOST, int(count * CALIBRATION_SHARE))
    return Split(calibration=order[:calibration], validation=order[calibration:])


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs by name (first axis: see `rows_of`), and integer labels by the output they belong to ("" = any)."""

    signature: Signature
    arrays: Tensors
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, signature: Signature) -> Samples:
        """Read an npz that intake has admitted. Raises KeyError when an input is missing in it."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {spec.name: _as_input(stored[spec.name], spec) for spec in signature.inputs}
            taken = {spec.name for spec in signature.inputs}
            labels = {
                name.removeprefix(LABELS).removeprefix("."): stored[name]
                for name in stored.files
                if name not in taken and (name == LABELS or name.startswith(LABELS + "."))
            }
        return cls(signature, arrays, {name: value for name, value in labels.items() if value.dtype.kind in "iu"})

    @property
    def count(self) -> int:
        return min(
            len(self.arrays[spec.name]) // rows_of(spec, self.arrays[spec.name].ndim) for spec in self.signature.inputs
        )

    def take(self, indices: Sequence[int] | np.ndarray) -> Tensors:
        """The samples at `indices` as the inputs of one run; more than one only where the first axis is dynamic."""
        return {spec.name: _take(self.arrays[spec.name], spec, np.asarray(indices)) for spec in self.signature.inputs}

    def select(self, indices: np.ndarray) -> Tensors:
        """The samples at `indices`, still stacked as in the file: what calibrates a pass."""
        chosen = {}
        for spec in self.signature.inputs:
            array, rows = self.arrays[spec.name], rows_of(spec, self.arrays[spec.name].ndim)
            entries = (indices[:, None] * rows + np.arange(rows)).ravel()
            chosen[spec.name] = np.ascontiguousarray(array[entries])
        return chosen

    def labels_at(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[np.asarray(indices)] for name, values in self.labels.items() if values.ndim == 1}


def chunks(indices: np.ndarray, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """Cut `indices` into runs whose sizes cycle through `rows`: every batch size a request may meet gets compared."""
    at, turn = 0, 0
    while at < len(indices):
        size = rows[turn % len(rows)]
        yield indices[at : at + size]
        at, turn = at + size, turn + 1


def repeat_to(rows: int, indices: np.ndarray) -> np.ndarray:
    """The first `rows` of `indices`, beginning again where there are too few."""
    return np.resize(indices, rows)


def _as_input(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """What a runtime takes: C-contiguous, of the declared datatype; texts as bytes in an object array."""
    if spec.datatype != "BYTES":
        return np.ascontiguousarray(array, dtype=numpy_dtype(spec.datatype)).reshape(array.shape)
    texts = np.empty(array.shape, dtype=object)
    texts.reshape(-1)[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    return texts


def rows_of(spec: TensorSpec, axes: int) -> int:
    """How many entries of the first of an array's `axes` one sample takes: more than one only for a fixed batch."""
    return spec.shape[0] if spec.shape and spec.shape[0] > 1 and axes == len(spec.shape) else 1


def _take(array: np.ndarray, spec: TensorSpec, indices: np.ndarray) -> np.ndarray:
    if array.ndim > len(spec.shape):  # the sample axis is not an axis of the input
        if len(indices) != 1:
            raise ValueError(f"input {spec.name!r} has no axis for rows: one sample at a time")
        return np.ascontiguousarray(array[int(indices[0])]).reshape(array.shape[1:])
    rows = rows_of(spec, array.ndim)
    if rows == 1:
        return np.ascontiguousarray(array[indices])
    if len(indices) != 1:
        raise ValueError(f"input {spec.name!r} takes {rows} rows, always: one sample at a time")
    start = int(indices[0]) * rows
    return np.ascontiguousarray(array[start : start + rows])

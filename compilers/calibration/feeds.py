"""Calibration arrays cut into the runs a quantizer observes: a few rows at a time, so memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compilers.calibration import Calibration, Stacked

ROWS = 8
"""Samples of one run where the model takes any number: enough to use the cores, small enough for large activations."""


def feeds(model: ir.Model, calibration: Calibration, rows: int = ROWS) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of one run after another: up to `rows` samples where every first axis is dynamic, else one sample.

    Raises ValueError when an input has no samples.
    """
    return iter(Feeds(model, calibration, rows))


class Feeds:
    """The same for whoever goes through them more than once: each time they are read anew, a run at a time.

    most: samples at most. Raises ValueError when an input has no samples.
    """

    def __init__(self, model: ir.Model, calibration: Calibration, rows: int = ROWS, most: int | None = None) -> None:
        inputs = {str(value.name): value for value in model.graph.inputs if value.name not in model.graph.initializers}
        missing = sorted(inputs.keys() - calibration.keys())
        if missing:
            raise ValueError(f"no calibration samples for input {', '.join(missing)}")
        self._streams = {name: _stream(value, calibration[name]) for name, value in inputs.items()}
        self._together = rows if all(stream.any_rows for stream in self._streams.values()) else 1
        samples = min(stream.samples for stream in self._streams.values())
        self._samples = samples if most is None else min(samples, most)

    def __len__(self) -> int:
        return math.ceil(self._samples / self._together)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for run in range(len(self)):
            start, stop = run * self._together, min((run + 1) * self._together, self._samples)
            yield {name: stream.take(start, stop) for name, stream in self._streams.items()}


@dataclass(frozen=True, slots=True)
class _Stream:
    """One input's array. `entries` of its first axis make a sample; `whole`: one entry is the entire input."""

    array: Stacked
    entries: int
    whole: bool
    any_rows: bool

    @property
    def samples(self) -> int:
        return len(self.array) // self.entries

    def take(self, start: int, stop: int) -> np.ndarray:
        part = self.array[start * self.entries : stop * self.entries]
        return np.ascontiguousarray(part[0]).reshape(part.shape[1:]) if self.whole else np.ascontiguousarray(part)


def _stream(value: ir.Value, array: Stacked) -> _Stream:
    whole = value.shape is not None and array.ndim > len(value.shape)
    first = value.shape[0] if value.shape and not whole else None
    fixed = first if isinstance(first, int) else None
    return _Stream(array, entries=fixed or 1, whole=whole, any_rows=not whole and fixed is None)

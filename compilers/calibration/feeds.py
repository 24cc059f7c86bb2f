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
    inputs = {str(value.name): value for value in model.graph.inputs if value.name not in model.graph.initializers}
    missing = sorted(inputs.keys() - calibration.keys())
    if missing:
        raise ValueError(f"no calibration samples for input {', '.join(missing)}")
    streams = {name: _stream(value, calibration[name]) for name, value in inputs.items()}
    together = rows if all(stream.any_rows for stream in streams.values()) else 1
    samples = min(stream.samples for stream in streams.values())
    for run in range(math.ceil(samples / together)):
        start, stop = run * together, min((run + 1) * together, samples)
        yield {name: stream.take(start, stop) for name, stream in streams.items()}


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

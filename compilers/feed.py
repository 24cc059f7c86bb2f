"""What a step runs a model on: the owner's validation samples, or made-up inputs where there are none.

A feed is the same every time for the same parameters, so reference and variant, in different children on different
days, see the same runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compilers import synthetic
from compilers.samples import Samples, chunks, repeat_to, split
from model_store.entities import Signature

SYNTHETIC_SAMPLES = 64

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Run:
    """Inputs of one run, the indices of its samples, and their labels by output."""

    samples: list[int]
    inputs: Tensors
    labels: Tensors


@dataclass(frozen=True, slots=True)
class Feed:
    """`samples` None: synthetic inputs of rung `guess`. `rowwise`: the model's rows may share a run."""

    signature: Signature
    samples: Samples | None
    guess: int
    rowwise: bool

    @classmethod
    def of(cls, signature: Signature, samples: Path | None, guess: int, *, rowwise: bool) -> Feed:
        loaded = None if samples is None else Samples.load(samples, signature)
        return cls(signature, loaded, guess, rowwise)

    def runs(self, rows: Sequence[int]) -> Iterator[Run]:
        """Every validation sample once, in runs whose sizes cycle through `rows`."""
        for indices in chunks(self._validation(), rows if self.rowwise else (1,)):
            yield self._run(indices)

    def one(self, rows: int) -> Tensors:
        """Inputs of a single run of `rows` rows, samples repeated where they are too few."""
        return self._run(repeat_to(rows if self.rowwise else 1, self._validation())).inputs

    def _validation(self) -> np.ndarray:
        if self.samples is None:
            return np.arange(SYNTHETIC_SAMPLES)
        drawn = split(self.samples.count)
        return drawn.validation if len(drawn.validation) else drawn.calibration

    def _run(self, indices: np.ndarray) -> Run:
        numbers = [int(index) for index in indices]
        if self.samples is not None:
            return Run(numbers, self.samples.take(indices), self.samples.labels_at(indices))
        made = synthetic.inputs(self.signature, len(numbers), synthetic.LADDER[self.guess], seed=numbers[0])
        return Run(numbers, made, {})

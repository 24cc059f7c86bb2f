"""The first look at a model: does it run, does it repeat itself, may requests share a batch?

The reference is published on nothing but this, within a second, so it is a handful of runs. Real samples are the
better probe; without them the ladder of synthetic guesses is climbed down until the model runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compilers import synthetic
from compilers.proving.compare import Comparison, Mismatch
from compilers.samples import Samples
from compilers.targets import Session, TargetFailed, Tensors
from model_store.datatypes import v2_name
from model_store.entities import Signature, TensorSpec

ROWS = 3
"""Rows of the run that is held against single ones: enough to tell the first, the last and one between."""

SAME_DB = 60.0
"""A row keeps its answer in company, up to the rounding of another kernel: COMPILING's bound for lossless."""

MAX_ROWS = 64
TIMED_SECONDS, TIMED_MOST = 0.05, 50


class Unrunnable(Exception):
    """The model does not do what its signature says; in words."""


@dataclass(frozen=True, slots=True)
class Probed:
    """`guess`: the rung of synthetic.LADDER that ran (0 when samples did). `times_s`: single rows, in order.

    `shapes`: what one row looks like, by input. `samples`: how many there are.
    """

    max_rows: int
    guess: int
    noise_sqnr_db: float
    times_s: tuple[float, ...]
    shapes: dict[str, tuple[int, ...]]
    samples: int


def probe(session: Session, signature: Signature, samples: Samples | None) -> Probed:
    """Run the model a few times. Raises Unrunnable."""
    guess, outputs = _first_run(session, signature, samples)
    _refuse_other_outputs(signature, outputs, rows=1)
    draw = _drawer(signature, samples, guess)
    single = _Timed(session)
    rows = range(ROWS if signature.has_batch_axis else 1)
    alone = [single.run(draw([row])) for row in rows]
    again = single.run(draw([0]))
    batchable = signature.has_batch_axis and _same_in_company(session, signature, draw(rows), alone)
    while single.spent_s < TIMED_SECONDS and len(single.times_s) < TIMED_MOST:
        single.run(draw([0]))
    return Probed(
        max_rows=MAX_ROWS if batchable else 1,
        guess=guess,
        noise_sqnr_db=_agreement_db(alone[0], again, rowwise=False),
        times_s=tuple(single.times_s),
        shapes={name: tuple(array.shape) for name, array in draw([0]).items()},
        samples=0 if samples is None else samples.count,
    )


class _Timed:
    """Runs a session and notes how long each run took, in seconds."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.times_s: list[float] = []
        self.spent_s = 0.0

    def run(self, inputs: Tensors) -> Tensors:
        started = time.perf_counter_ns()
        outputs = self._session.run(inputs)
        self.times_s.append((time.perf_counter_ns() - started) / 1e9)
        self.spent_s += self.times_s[-1]
        return outputs


def _first_run(session: Session, signature: Signature, samples: Samples | None) -> tuple[int, Tensors]:
    if samples is not None:
        try:
            return 0, session.run(samples.take([0]))
        except TargetFailed as exc:
            raise Unrunnable(f"the model fails on the first of its own samples: {exc}") from exc
    for guess, rung in enumerate(synthetic.LADDER):
        try:
            return guess, session.run(synthetic.inputs(signature, 1, rung))
        except TargetFailed as exc:
            last = exc
    raise Unrunnable(
        f"the model fails on every synthetic input tried; register it with samples, which show valid ones: {last}"
    ) from last


def _drawer(signature: Signature, samples: Samples | None, guess: int) -> Callable[[Sequence[int]], Tensors]:
    if samples is not None:
        return lambda indices: samples.take([index % samples.count for index in indices])
    whole = synthetic.inputs(signature, ROWS, synthetic.LADDER[guess])
    dynamic = {spec.name: bool(spec.shape) and spec.shape[0] == -1 for spec in signature.inputs}
    return lambda indices: {
        name: np.ascontiguousarray(array[list(indices)]) if dynamic[name] else array for name, array in whole.items()
    }


def _same_in_company(session: Session, signature: Signature, rows: Tensors, alone: Sequence[Tensors]) -> bool:
    """False also when the model refuses more than one row, whatever its signature says."""
    try:
        together = session.run(rows)
        _refuse_other_outputs(signature, together, rows=ROWS)
        joined = {name: np.concatenate([outputs[name] for outputs in alone]) for name in together}
        return _agreement_db(joined, together, rowwise=True) >= SAME_DB
    except (TargetFailed, Unrunnable, ValueError):
        return False


def _agreement_db(first: Tensors, second: Tensors, *, rowwise: bool) -> float:
    """The lowest ratio of any output and sample; -200 when they are not even of one kind (NaN here, none there)."""
    comparison = Comparison(rowwise=rowwise)
    try:
        comparison.add(first, second, range(ROWS if rowwise else 1))
    except Mismatch:
        return -200.0
    return comparison.agreement().sqnr_p5_db


def _refuse_other_outputs(signature: Signature, outputs: Tensors, rows: int) -> None:
    for spec in signature.outputs:
        if spec.name not in outputs:
            raise Unrunnable(f"the model gives no output {spec.name!r}, which its signature has")
        array = outputs[spec.name]
        if v2_name(array.dtype) != spec.datatype:
            raise Unrunnable(f"output {spec.name!r} is {v2_name(array.dtype)}, the signature says {spec.datatype}")
        if not _fits(array.shape, spec, rows if signature.has_batch_axis else None):
            raise Unrunnable(
                f"output {spec.name!r} has shape {list(array.shape)}, the signature says {list(spec.shape)}"
            )


def _fits(shape: tuple[int, ...], spec: TensorSpec, rows: int | None) -> bool:
    wanted = spec.shape if rows is None or not spec.shape else (rows, *spec.shape[1:])
    return len(shape) == len(wanted) and all(said in (-1, size) for said, size in zip(wanted, shape, strict=True))

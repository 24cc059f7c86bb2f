"""Opening a variant in a runner: the session, the names of its tensors, and the first runs that nobody waits for."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from compilers.targets import Session, Target, TargetFailed, Tensors
from gateway.running import wire
from model_store.datatypes import numpy_dtype

_MOST_WORDS = 4096
"""Characters of an error that are told: runtimes quote the model, which may name things as long as it likes."""

_SECOND_RUN_S = 0.05
"""A warm run slower than this is not repeated just to learn its steady time."""


class Opened:
    """A session and the names and types that its tensors go by, in signature order."""

    def __init__(self, session: Session, load: wire.Load) -> None:
        self.session = session
        self.inputs = [spec.name for spec in load.inputs]
        self.outputs = [(index, spec.name, spec.datatype) for index, spec in enumerate(load.outputs)]


def open_variant(target: Target, load: wire.Load) -> tuple[Opened, float | None, str]:
    """The session, the time of a warm run of one row (None: there was none), and what a failed warm-up said.

    Raises whatever the runtime raises when it refuses to open it.
    """
    files = {name: Path(path) for name, path in load.files.items()}
    session = target.open(files, load.options, load.threads, load.instances)
    run_s = None
    for rows in load.warm:
        try:
            seconds = _warm(session, load, rows)
        except (TargetFailed, ValueError, KeyError, MemoryError) as exc:
            return Opened(session, load), run_s, f"warm-up with {rows} rows of zeros: {words(exc)}"
        run_s = seconds if rows == 1 else run_s
    return Opened(session, load), run_s, ""


def words(exc: BaseException) -> str:
    text = str(exc).strip() or type(exc).__name__
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]}..."


def _warm(session: Session, load: wire.Load, rows: int) -> float:
    """Seconds of a run with zeros: `rows` on a dynamic first axis, 1 on other dynamic axes; all instances at once."""
    inputs = {}
    for spec in load.inputs:
        shape = tuple((rows if axis == 0 else 1) if size < 0 else size for axis, size in enumerate(spec.shape))
        inputs[spec.name] = np.full(shape, b"", dtype=object) if spec.datatype == "BYTES" else _zeros(shape, spec)
    if load.instances == 1:
        return _timed(session, inputs)
    with ThreadPoolExecutor(load.instances) as pool:
        return max(pool.map(lambda _: _timed(session, dict(inputs)), range(load.instances)))


def _timed(session: Session, inputs: Tensors) -> float:
    seconds = 0.0
    for _ in range(2):
        started = time.monotonic()
        session.run(inputs)
        seconds = time.monotonic() - started
        if seconds > _SECOND_RUN_S:
            break
    return seconds


def _zeros(shape: tuple[int, ...], spec: wire.WarmInput) -> np.ndarray:
    return np.zeros(shape, numpy_dtype(spec.datatype))

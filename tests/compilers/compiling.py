"""What the tests of the compile walk share: models registered in a real store, a worker beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compilers.worker import run_worker
from model_store.entities import Job, JobEvent, ModelVersion, Variant
from model_store.store import ModelStore
from tests import zoo

QUICK = {"rows": [1], "budget_seconds": 60, "search": {"effort": "off"}}
"""One batch size, timed for a second, and only the first candidates: enough to walk the walk."""


def register(
    store: ModelStore,
    name: str,
    model: onnx.ModelProto,
    *,
    samples: Mapping[str, np.ndarray] | None = None,
    targets: Sequence[str] = ("ort-cpu",),
    **policy: Any,
) -> tuple[ModelVersion, tuple[Job, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        upload = Path(folder, "model.onnx")
        onnx.save(model, upload)
        packed = None if samples is None else zoo.npz(Path(folder, "samples.npz"), **samples)
        return store.register(name, upload, samples=packed, policy=QUICK | policy, targets=targets)


@contextmanager
def working(store: ModelStore) -> Iterator[threading.Event]:
    """A worker in this process, at the priority of the tests; leaving the block stops it."""
    stop = threading.Event()
    worker = threading.Thread(target=run_worker, args=(store, stop), kwargs={"nice": 0})
    worker.start()
    try:
        yield stop
    finally:
        stop.set()
        worker.join(30)
        assert not worker.is_alive()


def start_worker(data: Path, lease_s: float = 1.0) -> subprocess.Popen[bytes]:
    """A worker in a process of its own, with a lease short enough to wait for its end."""
    code = (
        "import sys, threading, pathlib\n"
        "from compilers.worker import run_worker\n"
        "from model_store.store import ModelStore\n"
        "store = ModelStore.open(pathlib.Path(sys.argv[1]))\n"
        "run_worker(store, threading.Event(), lease_s=float(sys.argv[2]), nice=0)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(data), str(lease_s)], env=dict(os.environ))


def ended(store: ModelStore, jobs: Sequence[Job], patience_s: float = 90) -> list[Job]:
    wait_until(lambda: all(store.catalog.job(job.id).state.ended for job in jobs), patience_s)
    return [store.catalog.job(job.id) for job in jobs]


def variants(store: ModelStore, name: str) -> dict[str, Variant]:
    return {variant.id: variant for variant in store.catalog.variants(name, "1")}


def events(store: ModelStore, jobs: Sequence[Job]) -> list[JobEvent]:
    return [event for job in jobs for event in store.catalog.events(job.id)]


def wait_until(holds: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def crash_in_children(patched: pytest.MonkeyPatch, folder: Path, step: str) -> None:
    """Every child that runs `step` touches address zero from now on: what broken native code does."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"import ctypes, sys\nif {step!r} in sys.orig_argv: ctypes.string_at(0)\n")
    patched.setenv("PYTHONPATH", str(folder))

"""ONNX Runtime on CPU: the target of the reference, and of every variant that stays plain ONNX.

The artifact is the ONNX file as the passes left it. What ONNX Runtime optimises for a CPU it optimises again at every
opening: a file saved from its own optimiser holds layouts of the machine that wrote it.

The runtime is imported when a model is opened, so asking this target for its name or fingerprint loads nothing.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from compilers import hardware
from compilers.memory import give_back_free_blocks
from compilers.targets import Built, Session, Target, TargetFailed, Tensors
from compilers.telemetry import silence

MODEL = "model.onnx"
BFLOAT16, BFLOAT16_ELEMENT = "tensor(bfloat16)", 16
"""ONNX Runtime's word for the type, and `onnx.TensorProto.BFLOAT16`."""


class OrtCpu:
    """`ort-cpu`. Options: `precision` says what the passes made of the weights, `reference` that no pass touched it."""

    name = "ort-cpu"

    def fingerprint(self) -> dict[str, str]:
        return {"onnxruntime": _version(), **hardware.fingerprint()}

    def build(self, model: Path, workdir: Path, options: Mapping[str, Any]) -> Built:
        """Take the file as it is. Raises nothing: a model ONNX Runtime refuses is refused at `open`."""
        return Built(files={MODEL: model}, options={"precision": "f32", **options})

    def open(
        self, files: Mapping[str, Path], options: Mapping[str, Any], threads: int, instances: int = 1
    ) -> OrtSession:
        """Open the model with fixed options. Raises TargetFailed when ONNX Runtime refuses it.

        A session of one thread runs on the threads that call it, so one of them is as many instances as there are
        callers, with the weights in memory once. Sessions of several threads would share their workers and be in each
        other's way: each instance has its own.
        """
        with ort_errors("open"):
            opened = [
                _runtime().InferenceSession(
                    str(files[MODEL]), sess_options=session_options(threads), providers=["CPUExecutionProvider"]
                )
                for _ in range(1 if threads == 1 else instances)
            ]
        give_back_free_blocks()
        return OrtSession(opened)


class OrtSession:
    """An opened model. Strings go in as bytes or str and come out as bytes, both in object arrays."""

    def __init__(self, sessions: Sequence[Any]) -> None:
        first = sessions[0]
        self._first = first
        self._free: SimpleQueue[Any] | None = None
        if len(sessions) > 1:
            self._free = SimpleQueue()
            for session in sessions:
                self._free.put(session)
        self._inputs = {spec.name: spec.type for spec in first.get_inputs()}
        self._outputs = [spec.name for spec in first.get_outputs()]
        types = (*self._inputs.values(), *(spec.type for spec in first.get_outputs()))
        self._brains = BFLOAT16 in types
        self._texts = [name for name, kind in self._inputs.items() if kind == "tensor(string)"]

    def run(self, inputs: Tensors) -> Tensors:
        if self._free is None:
            return self._run(self._first, inputs)
        session = self._free.get()
        try:
            return self._run(session, inputs)
        finally:
            self._free.put(session)

    def close(self) -> None:
        self._first = self._free = None

    def _run(self, session: Any, inputs: Tensors) -> Tensors:
        with ort_errors("run"):
            if self._texts:
                inputs = inputs | {name: _as_text(inputs[name]) for name in self._texts if name in inputs}
            outputs = self._run_brains(session, inputs) if self._brains else session.run(self._outputs, inputs)
            return {name: _as_bytes(array) for name, array in zip(self._outputs, outputs, strict=True)}

    def _run_brains(self, session: Any, inputs: Tensors) -> list[np.ndarray]:
        """As `_run`, for models that exchange bfloat16: the binding takes and gives it as memory, never as an array."""
        fed = {name: _value(array, self._inputs.get(name) == BFLOAT16) for name, array in inputs.items()}
        return [_array(value) for value in session.run_with_ort_values(self._outputs, fed)]


def session_options(threads: int) -> Any:
    """The one set of options every session is opened with, so that variants differ by their graph alone."""
    options = _runtime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = _runtime().ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = _runtime().GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Threads may spin while a run lasts, never between runs: an idle session would steal the cores of the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


@contextmanager
def ort_errors(where: str) -> Iterator[None]:
    """The bridge: whatever ONNX Runtime raises leaves as TargetFailed."""
    try:
        yield
    except foreign_errors() as exc:
        raise TargetFailed(f"ort-cpu {where}: {str(exc).strip() or type(exc).__name__}") from exc


@functools.cache
def foreign_errors() -> tuple[type[BaseException], ...]:
    """Every error the binding defines (they share no base but Exception), and the builtins it raises.

    ValueError: a missing input; TypeError and RuntimeError: something that is no tensor; MemoryError: std::bad_alloc.
    """
    _runtime()
    import onnxruntime.capi.onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, ValueError, TypeError, RuntimeError, MemoryError)


@functools.cache
def _runtime() -> ModuleType:
    silence()
    return importlib.import_module("onnxruntime")


@functools.cache
def _version() -> str:
    for distribution in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"


def _as_text(array: np.ndarray) -> np.ndarray:
    """The binding calls str() on what it finds in an object array: bytes must become text first (UTF-8)."""
    flat = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel().tolist()]
    return _objects(flat, array.shape)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return array if array.dtype != object else _objects([item.encode() for item in array.ravel().tolist()], array.shape)


def _value(array: np.ndarray, brain: bool) -> Any:
    """An OrtValue over the memory of the array, which must outlive it. Raises ValueError where bfloat16 is missing."""
    kind = _runtime().OrtValue
    if not brain:
        return kind.ortvalue_from_numpy(np.ascontiguousarray(array))
    if array.dtype.name != "bfloat16":
        raise ValueError(f"expected bfloat16, got {array.dtype}")
    return kind.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array).view(np.uint16), BFLOAT16_ELEMENT)


def _array(value: Any) -> np.ndarray:
    """The value as an array of its own."""
    if value.data_type() != BFLOAT16:
        array: np.ndarray = value.numpy()
        return array
    import ml_dtypes

    taken = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bytearray(taken), ml_dtypes.bfloat16).reshape(value.shape())


def _objects(items: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)


if TYPE_CHECKING:
    _target: Target = OrtCpu()
    _session: Session = OrtSession(())

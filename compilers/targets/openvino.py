"""OpenVINO on CPU: converts ONNX to OpenVINO's own two files once, then opens them with every choice explicit.

Left to itself OpenVINO picks bf16 on a CPU that has it, so the inference precision is set always, also for int8
models (it then rules the layers that stayed in float).

The runtime is imported when a model is built or opened, so asking this target for its name or fingerprint loads
nothing. Opening needs neither onnx nor the converter: the weights file is mapped, not read.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from compilers import hardware
from compilers.memory import MappedFile, give_back_free_blocks
from compilers.targets import Built, Session, Target, TargetFailed, Tensors
from compilers.telemetry import silence
from model_store.datatypes import numpy_dtype

MODEL, WEIGHTS = "model.xml", "model.bin"

INFERENCE_PRECISION = {"f32": "f32", "bf16": "bf16", "int8": "f32"}
"""`precision` -> the precision of what is not quantized; the option `inference_precision` overrides it."""


class OpenVinoCpu:
    """`openvino-cpu`. Options: `precision` (f32, bf16, int8) and `inference_precision` (f32, bf16)."""

    name = "openvino-cpu"

    def fingerprint(self) -> dict[str, str]:
        return {"openvino": importlib.metadata.version("openvino"), **hardware.fingerprint()}

    def build(self, model: Path, workdir: Path, options: Mapping[str, Any]) -> Built:
        """Convert `model` into `workdir`. Raises TargetFailed when OpenVINO lacks an operator or a datatype."""
        chosen = {"precision": "f32", **options}
        chosen.setdefault("inference_precision", _inference_precision(chosen))
        with openvino_errors("build"):
            network = _core().read_model(str(model))
            _refuse_strings(network)
            _name_outputs(network, model)
            _runtime().save_model(network, str(workdir / MODEL), compress_to_fp16=False)
        return Built(files={MODEL: workdir / MODEL, WEIGHTS: workdir / WEIGHTS}, options=chosen)

    def open(
        self, files: Mapping[str, Path], options: Mapping[str, Any], threads: int, instances: int = 1
    ) -> OpenVinoSession:
        """Compile the two files for this CPU. Raises TargetFailed when OpenVINO refuses them."""
        with openvino_errors("open"):
            weights = MappedFile(files[WEIGHTS])
            network = _core().read_model(files[MODEL].read_text(), _runtime().Tensor(weights.array, shared_memory=True))
            compiled = _core().compile_model(network, "CPU", properties(options, threads, instances))
            return OpenVinoSession(compiled, instances, weights)


class OpenVinoSession:
    """A compiled model with a request for each instance: as many runs at a time as there are.

    Inputs are read where they lie (copied only when read-only or strided) and held until the request's next run;
    outputs are copied, because the request writes its next answer into the same memory.
    """

    def __init__(self, compiled: Any, instances: int, weights: MappedFile) -> None:
        self._inputs = [port.get_any_name() for port in compiled.inputs]
        self._outputs = [port.get_any_name() for port in compiled.outputs]
        self._bf16_inputs = _bf16_indices(compiled.inputs)
        self._bf16_outputs = _bf16_indices(compiled.outputs)
        self._weights = weights
        self._fresh = instances
        self._free: SimpleQueue[_Request] = SimpleQueue()
        for _ in range(instances):
            self._free.put(_Request(compiled.create_infer_request()))

    def run(self, inputs: Tensors) -> Tensors:
        request = self._free.get()
        try:
            with openvino_errors("run"):
                if inputs.keys() != set(self._inputs):
                    raise ValueError(f"inputs are {sorted(inputs)}, the model takes {sorted(self._inputs)}")
                held = [self._readable(index, inputs[name]) for index, name in enumerate(self._inputs)]
                request.infer([self._tensor(index, array) for index, array in enumerate(held)], held)
                if self._fresh:
                    self._settle()
                return {name: self._output(request, index).copy() for index, name in enumerate(self._outputs)}
        finally:
            self._free.put(request)

    def close(self) -> None:
        self._free = SimpleQueue()

    def _settle(self) -> None:
        """The first runs have packed the weights for this CPU: what they were packed from need not stay in memory."""
        self._fresh -= 1
        self._weights.forget()
        give_back_free_blocks()

    def _readable(self, index: int, array: np.ndarray) -> np.ndarray:
        if not (array.flags.c_contiguous and array.flags.writeable):
            array = array.copy(order="C")
        # numpy has no bfloat16 of its own: the binding takes and shows its bits as float16.
        return array.astype(numpy_dtype("BF16"), copy=False).view(np.float16) if index in self._bf16_inputs else array

    def _tensor(self, index: int, array: np.ndarray) -> Any:
        if index in self._bf16_inputs:
            return _runtime().Tensor(array, list(array.shape), _runtime().Type.bf16)
        return _runtime().Tensor(array, shared_memory=True)

    def _output(self, request: _Request, index: int) -> np.ndarray:
        data = request.output(index)
        return data.view(numpy_dtype("BF16")) if index in self._bf16_outputs else data


class _Request:
    """An infer request and the arrays it reads."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._held: list[np.ndarray] = []

    def infer(self, tensors: list[Any], held: list[np.ndarray]) -> None:
        # A tensor over shared memory does not keep its array alive: this does, until the next run.
        self._held = held
        for index, tensor in enumerate(tensors):
            self._request.set_input_tensor(index, tensor)
        self._request.infer(share_outputs=True)

    def output(self, index: int) -> np.ndarray:
        data: np.ndarray = self._request.get_output_tensor(index).data
        return data


def properties(options: Mapping[str, Any], threads: int, instances: int = 1) -> dict[str, Any]:
    """Every property that changes numbers or threads, set: nothing is left to the machine's defaults."""
    return {
        "INFERENCE_PRECISION_HINT": _inference_precision(options),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": instances,
        "INFERENCE_NUM_THREADS": threads * instances,
        # Pinned threads would queue behind whatever else runs on their core while another core idles.
        "ENABLE_CPU_PINNING": False,
    }


@contextmanager
def openvino_errors(where: str) -> Iterator[None]:
    """The bridge: whatever OpenVINO raises leaves as TargetFailed."""
    try:
        yield
    except foreign_errors() as exc:
        raise TargetFailed(f"openvino-cpu {where}: {_last_words(exc)}") from exc


@functools.cache
def foreign_errors() -> tuple[type[BaseException], ...]:
    """Every error the binding defines (no common base but Exception), its Python layer's root, and the builtins.

    RuntimeError: any C++ exception; ValueError and TypeError: something that is no tensor; MemoryError: std::bad_alloc.
    """
    _runtime()
    import openvino._pyopenvino as binding
    from openvino.exceptions import OVError

    own = [kind for kind in vars(binding).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, OVError, ValueError, TypeError, RuntimeError, MemoryError)


@functools.cache
def _runtime() -> ModuleType:
    silence()
    return importlib.import_module("openvino")


@functools.cache
def _core() -> Any:
    return _runtime().Core()


def _inference_precision(options: Mapping[str, Any]) -> str:
    precision = options.get("inference_precision") or INFERENCE_PRECISION.get(str(options.get("precision")))
    if precision not in ("f32", "bf16"):
        raise TargetFailed(f"openvino-cpu: precision is one of {', '.join(INFERENCE_PRECISION)}, not {dict(options)!r}")
    return str(precision)


def _refuse_strings(network: Any) -> None:
    texts = [
        port.get_any_name()
        for port in (*network.inputs, *network.outputs)
        if port.get_element_type() == _runtime().Type.string
    ]
    if texts:
        raise TargetFailed(f"openvino-cpu takes no string tensors (BYTES), and the model has {', '.join(texts)}")


def _name_outputs(network: Any, model: Path) -> None:
    """Give every output its ONNX name and no other: conversion may merge tensors and so leave several names on one."""
    import onnx

    names = [output.name for output in onnx.load(model, load_external_data=False).graph.output]
    for port, name in zip(network.outputs, names, strict=True):
        if port.get_names() != {name}:
            port.get_tensor().set_names({name})


def _bf16_indices(ports: Any) -> frozenset[int]:
    return frozenset(index for index, port in enumerate(ports) if port.get_element_type() == _runtime().Type.bf16)


def _last_words(exc: BaseException) -> str:
    """OpenVINO's messages are call stacks, outermost first: keep the lines that say something, at most a paragraph."""
    lines = [line.strip() for line in str(exc).splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception from ")]
    return " ".join(told)[:1000] or type(exc).__name__


if TYPE_CHECKING:
    _target: Target = OpenVinoCpu()
    _session: Session = OpenVinoSession(None, 1, MappedFile(Path()))

"""Static int8 for OpenVINO: NNCF's post-training quantization with bias correction, on the ONNX graph.

The mixed preset (symmetric weights, asymmetric activations where they need it) loses least; transformers get NNCF's
own scheme, which smooths activation outliers into the weights first (Xiao et al., "SmoothQuant", 2023). NNCF leaves
BatchNormalization where it stands, so fold it before.

NNCF copies a model several times and looks at all of its tensors at once. So weights lie in a file that the copies
share, and runs give back what they held (`_lean_runs`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from compilers.calibration import Calibration
from compilers.calibration.feeds import ROWS, Feeds, feeds
from compilers.memory import return_large_blocks
from compilers.passes.graph import attends, is_quantized, need, need_names, need_products, promise_quantized
from compilers.telemetry import silence

RUN_BYTES = 256 << 10
"""Inputs of one run, together: NNCF looks at all tensors of a model at once, and they are as many times larger."""

WEIGHT_BYTES = 64 << 10
"""Constants smaller than this stay in the graph."""

WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

PRESETS = ("mixed", "performance")
NEEDED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


class QuantizeNncf(ir.passes.InPlacePass):
    """`samples`: the most that calibrate. `fast_bias_correction` False is slower and a little more exact.

    preset: mixed or performance (symmetric activations). transformer: NNCF's scheme for them, None where the operators
    tell. smooth_alpha: of its SmoothQuant for products, None its own. exclude: names of nodes left in float.
    """

    def __init__(
        self,
        calibration: Calibration,
        samples: int = 300,
        fast_bias_correction: bool = True,
        preset: str = "mixed",
        transformer: bool | None = None,
        smooth_alpha: float | None = None,
        exclude: Sequence[str] = (),
        bias_correction: bool = True,
    ) -> None:
        self.calibration = calibration
        self.samples = samples
        self.fast_bias_correction = fast_bias_correction
        self.preset = preset
        self.transformer = transformer
        self.smooth_alpha = smooth_alpha
        self.exclude = tuple(exclude)
        self.bias_correction = bias_correction

    def requires(self, model: ir.Model) -> None:
        need(self.preset in PRESETS, f"no preset {self.preset!r}; there are {', '.join(PRESETS)}")
        alpha = self.smooth_alpha
        need(alpha is None or 0 <= alpha <= 1, f"smooth_alpha is between 0 and 1, not {alpha}")
        need_products(model, NEEDED)
        need_names(model, self.exclude)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if is_quantized(model):
            return ir.passes.PassResult(model, modified=False)
        silence()
        import nncf
        from nncf.onnx.quantization.backend_parameters import BackendParameters

        return_large_blocks()
        nncf.set_log_level(logging.ERROR)
        runs = Feeds(model, self.calibration, _rows(model, self.calibration), most=self.samples)
        transformer = attends(model) if self.transformer is None else self.transformer
        advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=not self.bias_correction)
        if self.smooth_alpha is not None:
            advanced.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(matmul=self.smooth_alpha)
        with (
            contextlib.redirect_stdout(io.StringIO()),  # its progress bars would fill the job's log
            tempfile.TemporaryDirectory() as folder,
            _lean_runs(),
        ):
            _put_weights_beside(model, Path(folder))
            advanced.backend_params[BackendParameters.EXTERNAL_DATA_DIR] = folder
            quantized = nncf.quantize(
                ir.to_proto(model),
                nncf.Dataset(runs),
                preset=nncf.QuantizationPreset(self.preset),
                model_type=nncf.ModelType.TRANSFORMER if transformer else None,
                subset_size=len(runs),
                fast_bias_correction=self.fast_bias_correction,
                ignored_scope=nncf.IgnoredScope(names=list(self.exclude)) if self.exclude else None,
                advanced_parameters=advanced,
            )
        after = ir.from_proto(quantized)
        model.graph, model.ir_version = after.graph, after.ir_version
        return ir.passes.PassResult(model, modified=is_quantized(model))

    def ensures(self, model: ir.Model) -> None:
        promise_quantized(model)


def _put_weights_beside(model: ir.Model, folder: Path) -> None:
    """In place: large constants move into a file of `folder`; of small ones nothing keeps what they were read from."""
    for value in model.graph.initializers.values():
        held = value.const_value
        if held is not None and held.nbytes < WEIGHT_BYTES:
            value.const_value = ir.tensor(np.array(held.numpy()), dtype=held.dtype, name=value.name)
    ir.external_data.unload_from_model(model, folder, "weights", size_threshold_bytes=WEIGHT_BYTES)


@contextlib.contextmanager
def _lean_runs() -> Iterator[None]:
    """Within it a run of NNCF's holds its outputs once, and nothing is kept after it.

    NNCF's engine copies every output, keeps the arena, and leaves convolutions their blocked layouts, of which each
    output that is looked at is a copy. It takes no options and is looked up by its name, so the name is lent.
    """
    import onnxruntime
    from nncf.onnx import engine
    from nncf.onnx.graph.model_metadata import MetadataKey, get_metadata

    class Lean(engine.ONNXEngine):  # type: ignore[misc]
        def __init__(self, model: Any) -> None:
            options = onnxruntime.SessionOptions()
            options.enable_cpu_mem_arena = False
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            if beside := get_metadata(model, MetadataKey.EXTERNAL_DATA_DIR):
                options.add_session_config_entry(WEIGHTS_FOLDER, beside)
            self.sess = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
            self.input_names = {value.name for value in self.sess.get_inputs()}

        def infer(self, input_data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            binding = self.sess.io_binding()
            for name, array in input_data.items():
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
            outputs = [value.name for value in self.sess.get_outputs()]
            for name in outputs:
                binding.bind_output(name)
            self.sess.run_with_iobinding(binding)
            return dict(zip(outputs, map(_seen, binding.get_outputs()), strict=True))

    theirs, engine.ONNXEngine = engine.ONNXEngine, Lean
    try:
        yield
    finally:
        engine.ONNXEngine = theirs


class _Seen:
    """A tensor of the runtime as an array sees it, without a copy: the array keeps it alive."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.__array_interface__ = {
            "shape": tuple(value.shape()), "typestr": "<f4", "data": (value.data_ptr(), False), "version": 3,
        }  # fmt: skip


def _seen(value: Any) -> np.ndarray:
    floats = value.data_type() == "tensor(float)" and all(value.shape())
    found: np.ndarray = np.asarray(_Seen(value)) if floats else value.numpy()
    return found


def _rows(model: ir.Model, calibration: Calibration) -> int:
    """Samples of a run, so that what a run makes of them stays small."""
    sample = sum(array.nbytes for array in next(feeds(model, calibration, 1)).values())
    return max(1, min(ROWS, RUN_BYTES // max(1, sample)))

"""Static int8 for OpenVINO: NNCF's post-training quantization with bias correction, on the ONNX graph.

The mixed preset (symmetric weights, asymmetric activations where they need it) loses least; transformers get NNCF's
own scheme, which smooths activation outliers into the weights first (Xiao et al., "SmoothQuant", 2023). NNCF leaves
BatchNormalization where it stands, so fold it before.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence

import onnx_ir as ir

from compilers.calibration import Calibration
from compilers.calibration.feeds import ROWS, Feeds, feeds
from compilers.passes.graph import attends, is_quantized, need, need_names, need_products, promise_quantized
from compilers.telemetry import silence

RUN_BYTES = 256 << 10
"""Inputs of one run, together: NNCF looks at all tensors of a model at once, and they are as many times larger."""

PRESETS = ("mixed", "performance")
NEEDED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


class QuantizeNncf(ir.passes.FunctionalPass):
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
            return ir.passes.PassResult(model.clone(), modified=False)
        silence()
        import nncf

        nncf.set_log_level(logging.ERROR)
        runs = Feeds(model, self.calibration, _rows(model, self.calibration), most=self.samples)
        transformer = attends(model) if self.transformer is None else self.transformer
        advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=not self.bias_correction)
        if self.smooth_alpha is not None:
            advanced.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(matmul=self.smooth_alpha)
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars would fill the job's log
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
        return ir.passes.PassResult(after, modified=is_quantized(after))

    def ensures(self, model: ir.Model) -> None:
        promise_quantized(model)


def _rows(model: ir.Model, calibration: Calibration) -> int:
    """Samples of a run, so that what a run makes of them stays small."""
    sample = sum(array.nbytes for array in next(feeds(model, calibration, 1)).values())
    return max(1, min(ROWS, RUN_BYTES // max(1, sample)))

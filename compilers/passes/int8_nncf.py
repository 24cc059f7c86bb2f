"""Static int8 for OpenVINO: NNCF's post-training quantization with bias correction, on the ONNX graph.

The mixed preset (symmetric weights, asymmetric activations where they need it) loses least; transformers get NNCF's
own scheme, which smooths activation outliers into the weights first (Xiao et al., "SmoothQuant", 2023). NNCF leaves
BatchNormalization where it stands, so fold it before.
"""

from __future__ import annotations

import contextlib
import io
import logging

import onnx_ir as ir

from compilers.passes import Calibration
from compilers.passes.calibration import feeds
from compilers.passes.graph import attends, is_quantized, need_products, promise_quantized
from compilers.telemetry import silence

NEEDED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


class QuantizeNncf(ir.passes.FunctionalPass):
    """`samples`: the most that calibrate. `fast_bias_correction` False is slower and a little more exact."""

    def __init__(self, calibration: Calibration, samples: int = 300, fast_bias_correction: bool = True) -> None:
        self.calibration = calibration
        self.samples = samples
        self.fast_bias_correction = fast_bias_correction

    def requires(self, model: ir.Model) -> None:
        need_products(model, NEEDED)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if is_quantized(model):
            return ir.passes.PassResult(model.clone(), modified=False)
        silence()
        import nncf

        nncf.set_log_level(logging.ERROR)
        runs = list(feeds(model, {name: array[: self.samples] for name, array in self.calibration.items()}))
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars would fill the job's log
            quantized = nncf.quantize(
                ir.to_proto(model),
                nncf.Dataset(runs),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER if attends(model) else None,
                subset_size=len(runs),
                fast_bias_correction=self.fast_bias_correction,
            )
        after = ir.from_proto(quantized)
        return ir.passes.PassResult(after, modified=is_quantized(after))

    def ensures(self, model: ir.Model) -> None:
        promise_quantized(model)

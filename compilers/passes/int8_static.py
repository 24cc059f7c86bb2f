"""Static int8 for ONNX Runtime: Q/DQ pairs whose ranges were observed on calibration samples.

Unsigned activations with signed weights are what its x86 kernels are fast at (signed both ways is slower:
onnxruntime issue 6732). Ranges are the extremes seen (min-max): nothing is kept of a run but two numbers a tensor, so
any number of samples streams through.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from compilers.passes import Calibration
from compilers.passes.calibration import feeds
from compilers.passes.graph import attends, is_quantized, need_products, promise_quantized
from compilers.passes.shapes import with_shapes
from compilers.telemetry import silence

NEEDED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


class QuantizeStatic(ir.passes.FunctionalPass):
    """`kinds`: operator types to quantize. `reduce_range`: 7-bit weights, for CPUs without VNNI.

    By default every operator that has an int8 kernel, so that regions stay in int8; of a transformer only products: the
    sum of scores and mask spans from a few to minus ten thousand, and 255 steps over that leave nothing of the scores.
    """

    def __init__(
        self,
        calibration: Calibration,
        kinds: tuple[str, ...] = (),
        per_channel: bool = True,
        reduce_range: bool = False,
    ) -> None:
        self.calibration = calibration
        self.kinds = kinds
        self.per_channel = per_channel
        self.reduce_range = reduce_range

    def requires(self, model: ir.Model) -> None:
        need_products(model, NEEDED)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if is_quantized(model):
            return ir.passes.PassResult(model.clone(), modified=False)
        silence()
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        with tempfile.TemporaryDirectory() as folder:
            prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
            onnx.save(with_shapes(ir.to_proto(model)), prepared)
            quantize_static(
                prepared,
                quantized,
                _reader(feeds(model, self.calibration)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(self.kinds or (NEEDED if attends(model) else ())),
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            after = ir.from_proto(onnx.load(quantized))
        return ir.passes.PassResult(after, modified=is_quantized(after))

    def ensures(self, model: ir.Model) -> None:
        promise_quantized(model)


def _reader(runs: Iterator[dict[str, np.ndarray]]) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(runs, None)

    return Reader()

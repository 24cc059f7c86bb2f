"""Dynamic int8 for ONNX Runtime: weights quantized now, activations at every run. No calibration, so no samples.

Only MatMul, Gemm and Attention: ConvInteger has no fast kernel (onnxruntime issues 12854 and 16009; measured 0.25x).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from compilers.passes.gemm import gemm_to_matmul
from compilers.passes.graph import is_quantized, need_names, need_products, promise_quantized
from compilers.passes.shapes import with_shapes
from compilers.telemetry import silence

KINDS = ("MatMul", "Gemm", "Attention")


class QuantizeDynamic(ir.passes.FunctionalPass):
    """`per_channel`: a scale for every column of a weight. `reduce_range`: 7-bit weights, for CPUs without VNNI.

    exclude: names of nodes left in float.
    """

    def __init__(self, per_channel: bool = True, reduce_range: bool = False, exclude: Sequence[str] = ()) -> None:
        self.per_channel = per_channel
        self.exclude = tuple(exclude)
        self.reduce_range = reduce_range

    def requires(self, model: ir.Model) -> None:
        need_products(model, KINDS)
        need_names(model, self.exclude)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if is_quantized(model):
            return ir.passes.PassResult(model.clone(), modified=False)
        silence()
        work = model.clone()
        gemm_to_matmul(work, self.exclude)
        left = [*self.exclude, *(f"{name}_MatMul" for name in self.exclude)]  # so ONNX Runtime renames a Gemm
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            quantized = Path(folder) / "quantized.onnx"
            quantize_dynamic(
                with_shapes(ir.to_proto(work)),
                quantized,
                op_types_to_quantize=list(KINDS),
                weight_type=QuantType.QInt8,
                nodes_to_exclude=left,
                per_channel=self.per_channel,
                reduce_range=self.reduce_range,
            )
            after = ir.from_proto(onnx.load(quantized))
        return ir.passes.PassResult(after, modified=is_quantized(after))

    def ensures(self, model: ir.Model) -> None:
        promise_quantized(model)

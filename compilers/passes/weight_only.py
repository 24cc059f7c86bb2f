"""Weights in 8 or 4 bits, activations in float: for models that wait for memory more than for arithmetic.

For ONNX Runtime each MatMul becomes a MatMulNBits (blocks of a weight's inputs share a scale; accuracy level 4 lets its
kernel quantize the activations of a block to int8 on the fly, which is what makes it fast). For OpenVINO NNCF writes
the compressed weights behind DequantizeLinear, which its CPU plugin fuses.

Rounding by Gram matrices (GPTQ) is ours and for MatMulNBits only; it needs calibration samples. It pays in 4 bits: a
sentence encoder keeps 15.9 dB instead of 11.7, asymmetric 16.3 instead of 12.9, for ten CPU seconds more.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Literal

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from compilers.calibration import Calibration
from compilers.calibration.calibrate import calibrated
from compilers.calibration.products import products
from compilers.calibration.statistics import Statistics
from compilers.passes.gemm import gemm_to_matmul
from compilers.passes.graph import is_quantized, need, need_names, need_products, promise_quantized
from compilers.passes.grid import ROUNDINGS
from compilers.passes.nbits import round_by_gram
from compilers.passes.shapes import with_shapes
from compilers.telemetry import silence

INT8_LEVEL = 4
"""MatMulNBits' accuracy_level: activations in int8."""


class QuantizeWeights(ir.passes.FunctionalPass):
    """bits: 8 or 4. block_size: inputs that share a scale, a power of two from 16. exclude: node names left in float.

    rounding: nearest, or gptq (onnxruntime alone; a product too deep for a Gram matrix stays with the nearest).
    runtime: onnxruntime (MatMulNBits) or openvino (NNCF; 8 bits are per channel there, whatever the block size).
    """

    def __init__(
        self,
        bits: int = 8,
        block_size: int = 32,
        symmetric: bool = True,
        exclude: Sequence[str] = (),
        runtime: Literal["onnxruntime", "openvino"] = "onnxruntime",
        rounding: Literal["nearest", "gptq"] = "nearest",
        calibration: Calibration | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self.bits = bits
        self.block_size = block_size
        self.symmetric = symmetric
        self.exclude = tuple(exclude)
        self.runtime = runtime
        self.rounding = rounding
        self.calibration = calibration
        self.statistics = statistics

    def requires(self, model: ir.Model) -> None:
        need(self.bits in (4, 8), f"bits are 4 or 8, not {self.bits}")
        size = self.block_size
        need(size >= 16 and size & (size - 1) == 0, f"block_size is a power of two from 16, not {size}")
        need(self.runtime in ("onnxruntime", "openvino"), f"runtime is onnxruntime or openvino, not {self.runtime!r}")
        need(self.rounding in ROUNDINGS, f"no rounding {self.rounding!r}; there are {', '.join(ROUNDINGS)}")
        gptq = self.rounding == "gptq"
        need(not gptq or self.runtime == "onnxruntime", "rounding gptq is for onnxruntime: openvino rounds by itself")
        need(not gptq or self.calibration, "rounding gptq needs calibration samples")
        need_products(model, ("MatMul", "Gemm"))
        need_names(model, self.exclude)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if is_quantized(model):
            return ir.passes.PassResult(model.clone(), modified=False)
        silence()
        work = model.clone()
        common.LiftConstantsToInitializersPass(lift_all_constants=True)(work)
        gemm_to_matmul(work, self.exclude)
        quantize = self._for_onnxruntime if self.runtime == "onnxruntime" else self._for_openvino
        proto = quantize(ir.to_proto(work))
        if self.rounding == "gptq" and self.calibration is not None:
            self._round(ir.from_proto(with_shapes(ir.to_proto(work))), proto, self.calibration)
        after = ir.from_proto(proto)
        return ir.passes.PassResult(after, modified=is_quantized(after))

    def ensures(self, model: ir.Model) -> None:
        promise_quantized(model)

    def _for_onnxruntime(self, model: onnx.ModelProto) -> onnx.ModelProto:
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

        config = DefaultWeightOnlyQuantConfig(
            block_size=self.block_size, is_symmetric=self.symmetric, accuracy_level=INT8_LEVEL, bits=self.bits
        )
        logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=self.bits,
            block_size=self.block_size,
            is_symmetric=self.symmetric,
            accuracy_level=INT8_LEVEL,
            nodes_to_exclude=list(self.exclude),
            algo_config=config,
        )
        quantizer.process()
        made: onnx.ModelProto = quantizer.model.model
        return made

    def _round(self, before: ir.Model, after: onnx.ModelProto, calibration: Calibration) -> None:
        """Choose the codes of every MatMulNBits of `after` by the inputs its product has in `before`."""
        found = {product.weight: product for product in products(before)}
        nbits = {node.input[1]: node for node in after.graph.node if node.op_type == "MatMulNBits"}
        tensors = {product.view.tensor for product in found.values()}
        with calibrated(before, calibration, self.statistics, tensors=tensors, grams=True) as seen:
            for weight, product in found.items():
                # ONNX Runtime names the codes after the weight.
                node = nbits.get(f"{weight}_Q{self.bits}")
                gram = seen.gram(product.view)
                if node is not None and gram is not None:
                    array = before.graph.initializers[weight].const_value.numpy()  # type: ignore[union-attr]
                    round_by_gram(after, node, array, gram[0])

    def _for_openvino(self, model: onnx.ModelProto) -> onnx.ModelProto:
        import nncf

        nncf.set_log_level(logging.ERROR)
        modes = nncf.CompressWeightsMode
        mode = {
            (8, True): modes.INT8_SYM,
            (8, False): modes.INT8_ASYM,
            (4, True): modes.INT4_SYM,
            (4, False): modes.INT4_ASYM,
        }[self.bits, self.symmetric]
        with contextlib.redirect_stdout(io.StringIO()):
            made: onnx.ModelProto = nncf.compress_weights(
                model,
                mode=mode,
                group_size=self.block_size if self.bits == 4 else None,
                ignored_scope=nncf.IgnoredScope(names=list(self.exclude)) if self.exclude else None,
            )
        return made

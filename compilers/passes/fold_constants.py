"""Fold what no request can change into constants: shape arithmetic, casts of weights, constant branches.

The evaluator is onnxscript's. Large results are left as nodes: a folded Expand can be bigger than the whole model.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


class FoldConstants(ir.passes.InPlacePass):
    """Evaluate nodes whose inputs are all constant; `input_bytes` and `output_bytes` bound each tensor."""

    def __init__(self, input_bytes: int = 1 << 16, output_bytes: int = 1 << 20) -> None:
        self.input_bytes = input_bytes
        self.output_bytes = output_bytes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        from onnxscript import optimizer

        modified = False
        if model.functions:
            modified |= common.InlinePass()(model).modified
        folded = optimizer.fold_constants(
            model, onnx_shape_inference=True, input_size_limit=self.input_bytes, output_size_limit=self.output_bytes
        )
        modified |= bool(folded.modified)
        for tidy in (
            common.LiftConstantsToInitializersPass(lift_all_constants=False),
            common.IdentityEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedOpsetsPass(),
        ):
            modified |= tidy(model).modified
        return ir.passes.PassResult(model, modified)

"""Clean up: dead nodes, repeated subexpressions, idle reshapes and transposes, Conv + Add and MatMul + Add pairs.

The work is onnxslim's. Its answer is standard ONNX that any runtime reads, nothing of one machine.
"""

from __future__ import annotations

import onnx_ir as ir

from compilers.passes.graph import is_quantized, same_graph


class CleanUp(ir.passes.FunctionalPass):
    """Simplify without changing what is computed. Quantized models are left alone: their Q/DQ pairs have a purpose."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if is_quantized(model):
            return ir.passes.PassResult(model.clone(), modified=False)
        import onnxslim

        before = ir.to_proto(model)
        work = ir.to_proto(model)  # onnxslim writes into what it is given
        after = onnxslim.slim(work)
        if same_graph(before, after):
            return ir.passes.PassResult(model.clone(), modified=False)
        return ir.passes.PassResult(ir.from_proto(after), modified=True)

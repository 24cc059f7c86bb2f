"""Whether int8 forms regions: what ONNX Runtime fuses of the Q/DQ pairs, and what it leaves standing.

A pair that is not fused is a conversion that runs at every request, and a product between two of them still runs in
float. Only the optimised graph tells, so it is made and read. COMPILING's mark: below a tenth of the nodes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
INTEGER = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid",
        "QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearSoftmax", "QLinearWhere",
        "QLinearConvTranspose", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention",
        "MatMulNBits",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Regions:
    """Of the graph as ONNX Runtime runs it: all nodes, integer kernels by operator, conversions left between them."""

    nodes: int
    integer: dict[str, int]
    stray: int


def regions(model: onnx.ModelProto) -> Regions:
    """Optimise a quantized model as it will be served, and count."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        counts = Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
    return Regions(
        nodes=counts.total(),
        integer={kind: number for kind, number in sorted(counts.items()) if kind in INTEGER},
        stray=sum(counts[kind] for kind in CONVERSIONS),
    )

"""What a model's operator types say about it; known from a count alone, so no graph is needed to choose recipes."""

from __future__ import annotations

from collections.abc import Collection

_INTEGER_KERNELS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinearConv",
        "QLinearMatMul", "QGemm", "QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits",
    }
)  # fmt: skip
_ATTENTIONS = frozenset({"Attention", "MultiHeadAttention"})
_NORMS = frozenset({"LayerNormalization", "SkipLayerNormalization", "RMSNormalization", "ReduceMean"})

PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
ELEMENTWISE = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Resize", "Softmax", "Sigmoid", "LeakyRelu")
"""What static int8 also quantizes in a model that is no transformer, to keep regions in int8."""

KEPT = frozenset(
    {
        "Cast", "CastLike", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Exp", "Log", "CumSum",
        "Range", "Resize", "Upsample", "TopK", "NonMaxSuppression", "Pow", "Sqrt", "Reciprocal", "Softmax",
        "LogSoftmax", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceProd", "Constant", "ConstantOfShape", "RandomNormal", "RandomUniform", "EyeLike",
        "OneHot", "RoiAlign", "LSTM", "GRU", "RNN", "Loop", "If", "Scan", "MelWeightMatrix", "Bernoulli",
    }
)  # fmt: skip
"""Never cast to 16 bits: what sums squares, exponentials or long runs, and what has no such kernel."""


def quantized(kinds: Collection[str]) -> bool:
    """True when integer kernels or Q/DQ are there already: quantizing again would compound the errors."""
    return not _INTEGER_KERNELS.isdisjoint(kinds)


def attend(kinds: Collection[str]) -> bool:
    """True of a transformer: a Softmax among MatMuls with layer normalisation, or a fused attention."""
    whole = not _ATTENTIONS.isdisjoint(kinds)
    return whole or ({"Softmax", "MatMul"} <= set(kinds) and not _NORMS.isdisjoint(kinds))

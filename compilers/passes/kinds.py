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


def quantized(kinds: Collection[str]) -> bool:
    """True when integer kernels or Q/DQ are there already: quantizing again would compound the errors."""
    return not _INTEGER_KERNELS.isdisjoint(kinds)


def attend(kinds: Collection[str]) -> bool:
    """True of a transformer: a Softmax among MatMuls with layer normalisation, or a fused attention."""
    whole = not _ATTENTIONS.isdisjoint(kinds)
    return whole or ({"Softmax", "MatMul"} <= set(kinds) and not _NORMS.isdisjoint(kinds))

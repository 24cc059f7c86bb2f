"""Types and shapes of every tensor, inferred before quantizing: a tensor of unknown type cannot be quantized."""

from __future__ import annotations

import onnx

from compilers.telemetry import silence


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its tensors typed, marked as prepared for ONNX Runtime's quantizers.

    ONNX's own inference knows the standard operators; a model with others goes through ONNX Runtime's symbolic one.
    """
    silence()
    _forget_weights(model)
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    if any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        model = symbolic(model)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    add_pre_process_metadata(model)
    return model


def symbolic(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its tensors typed by ONNX Runtime's inference, which follows shapes through computed values and
    knows its own operators. Raises anything on an operator that it does not know."""
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    inferred: onnx.ModelProto = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    return inferred


def _forget_weights(model: onnx.ModelProto) -> None:
    """Weights carry their own shape; told a second time, it contradicts a quantizer that transposes one (Gemm)."""
    weights = {tensor.name for tensor in model.graph.initializer}
    others = [info for info in model.graph.value_info if info.name not in weights]
    del model.graph.value_info[:]
    model.graph.value_info.extend(others)

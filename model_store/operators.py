"""Which operators a model may use: those that are computed by code which came with us and touch nothing outside.

Standard ONNX whole (the checker knows which of them exist), classical ML, and the operators of ONNX Runtime's own
domain that exporters and its optimizer write. Not those that name files or engines, nor anything that needs a library
of its own: a plug-in is code, and code is not accepted from clients.
"""

from __future__ import annotations

import difflib
from collections import Counter
from typing import TYPE_CHECKING

from model_store.contents import MOST_NODES, Contents, name_of, survey
from model_store.errors import InvalidModel

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

STANDARD, CLASSICAL, RUNTIME = "", "ai.onnx.ml", "com.microsoft"
_STANDARD_ALIAS = "ai.onnx"

OPSETS = {STANDARD: range(7, 27), CLASSICAL: range(1, 6), RUNTIME: range(1, 2)}
"""What the reference runtime reads: ONNX Runtime 1.31 guarantees opset 7 to 26."""
IR_VERSIONS = range(3, 14)

RUNTIME_OPERATORS = frozenset({
    "Attention", "BiasGelu", "BiasSoftmax", "BifurcationDetector", "CDist", "ConvTransposeWithDynamicPads",
    "CropAndResize", "DecoderMaskedMultiHeadAttention", "DequantizeLinear", "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul", "DynamicTimeWarping", "EmbedLayerNormalization", "ExpandDims", "FastGelu", "FusedConv",
    "FusedGemm", "FusedMatMul", "GatedAdd", "GatedRMSNorm", "GatedRelativePositionBias", "GatherBlockQuantized",
    "GatherND", "Gelu", "GemmFastGelu", "GridSample", "GroupNorm", "GroupQueryAttention", "Inverse", "Irfft",
    "LinearAttention", "LongformerAttention", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16", "MatMulIntegerToFloat",
    "MatMulNBits", "MaxpoolWithMask", "MoE", "MultiHeadAttention", "MurmurHash3", "NGramRepeatBlock", "NhwcConv",
    "NhwcFusedConv", "NhwcMaxPool", "Pad", "QAttention", "QEmbedLayerNormalization", "QGemm", "QLinearAdd",
    "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu",
    "QLinearMul", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QMoE", "QuantizeLinear",
    "QuickGelu", "Range", "RelativePositionBias", "Rfft", "RotaryEmbedding", "ScaledSiLU", "SkipGroupNorm",
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SparseToDenseMatMul", "Tokenizer",
    "TransposeMatMul", "Trilu", "Unique", "UnfoldTensor", "WordConvEmbedding",
})  # fmt: skip

_REFUSED = {
    "EPContext": "it stands for a prebuilt engine, which holds executable code; send the ONNX the engine was made from",
    "Snpe": "it stands for a prebuilt engine; send the ONNX the engine was made from",
    "PyOp": "it runs Python code; express it in ONNX operators",
    "PythonOp": "it runs Python code; express it in ONNX operators",
}


def normalise_domains(model: ModelProto, contents: Contents) -> None:
    """Write the standard domain one way: `ai.onnx` is the same as the empty name."""
    for node in contents.nodes:
        if node.domain == _STANDARD_ALIAS:
            node.domain = STANDARD
    for holder in (model, *model.functions):
        for opset in holder.opset_import:
            if opset.domain == _STANDARD_ALIAS:
                opset.domain = STANDARD


def check_versions(model: ModelProto) -> None:
    """Raise InvalidModel unless the IR and opset versions are among those we read."""
    if model.ir_version not in IR_VERSIONS:
        raise InvalidModel(
            f"the model has IR version {model.ir_version}; accepted are {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}"
        )
    for opset in model.opset_import:
        versions = OPSETS.get(opset.domain)
        if versions is not None and opset.version not in versions:
            raise InvalidModel(
                f"the model uses opset {opset.version} of {opset.domain or 'ai.onnx'}; accepted are "
                f"{versions[0]} to {versions[-1]}: convert it with onnx.version_converter, or export it again"
            )


def inline_functions(model: ModelProto) -> ModelProto:
    """The model with its own functions written out; passes and runtimes then meet plain operators only.

    Raises InvalidModel when functions call themselves, or when written out they are more than any model: nesting
    calls doubles a model with every line, so the size is computed before anything is expanded.
    """
    if not model.functions:
        return model
    _check_expansion(model)
    from onnx import inliner

    inlined = inliner.inline_local_functions(model, convert_version=True)
    called = {(node.domain, node.op_type) for node in survey(inlined).nodes}
    for function in inlined.functions:
        if (function.domain, function.name) in called:
            raise InvalidModel(
                f"the model calls its function {function.name!r}, which cannot be written out; inline it"
            )
    inlined.ClearField("functions")
    return inlined


def check_operators(contents: Contents) -> dict[str, int]:
    """Count the operators (`Conv`, `com.microsoft.Gelu`). Raises InvalidModel for the first that is not accepted."""
    for node in contents.nodes:
        if not (isinstance(node.domain, str) and isinstance(node.op_type, str)):
            raise InvalidModel(f"{name_of(node)}: its operator's name is no valid UTF-8; the model is damaged")
        if node.domain != STANDARD and node.domain != CLASSICAL:
            _check_operator(node)
    names = Counter((node.domain, node.op_type) for node in contents.nodes)
    return {f"{domain}.{name}" if domain else name: count for (domain, name), count in sorted(names.items())}


def drop_unused_domains(model: ModelProto, contents: Contents) -> None:
    """Keep the opset imports that are used: exporters list every domain they know."""
    used = {node.domain for node in contents.nodes} | {STANDARD}
    kept = [(opset.domain, opset.version) for opset in model.opset_import if opset.domain in used]
    model.ClearField("opset_import")
    for domain, version in dict(kept).items():
        model.opset_import.add(domain=domain, version=version)


def _check_operator(node: NodeProto) -> None:
    if node.op_type in _REFUSED:
        raise InvalidModel(f"{name_of(node)} is not accepted: {_REFUSED[node.op_type]}")
    if node.domain != RUNTIME:
        raise InvalidModel(
            f"{name_of(node)} is of the domain {node.domain[:80]!r}, which is not accepted: custom operators need "
            f"code of their own; accepted are the domains ai.onnx, {CLASSICAL} and {RUNTIME}"
        )
    if node.op_type not in RUNTIME_OPERATORS:
        close = difflib.get_close_matches(node.op_type, RUNTIME_OPERATORS, n=1)
        raise InvalidModel(
            f"{name_of(node)} is no accepted operator of {RUNTIME}" + (f"; did you mean {close[0]}?" if close else "")
        )


def _check_expansion(model: ModelProto) -> None:
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    waiting: list[tuple[str, str]] = list(functions)
    open_: set[tuple[str, str]] = set()
    while waiting:
        key = waiting[-1]
        if key in sizes:
            waiting.pop()
            continue
        calls = _nodes_of(functions[key])
        missing = [call for call in calls if call in functions and call not in sizes]
        if missing:
            open_.add(key)
            if any(call in open_ for call in missing):
                raise InvalidModel(f"the function {key[1][:80]!r} of the model calls itself")
            waiting += missing
            continue
        sizes[key] = sum(sizes.get(call, 1) for call in calls)
        open_.discard(key)
        waiting.pop()
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in _graph_nodes(model.graph))
    if max(total, *sizes.values()) > MOST_NODES:
        raise InvalidModel(f"written out, the functions of the model make more than {MOST_NODES:,} nodes")


def _nodes_of(function: FunctionProto) -> list[tuple[str, str]]:
    return [(node.domain, node.op_type) for node in _graph_nodes(function)]


def _graph_nodes(graph: object) -> list[NodeProto]:
    """The nodes of a graph or function and of the graphs in their attributes (nesting is bounded by the survey)."""
    nodes: list[NodeProto] = []
    waiting = [graph]
    while waiting:
        for node in waiting.pop().node:  # type: ignore[attr-defined]
            nodes.append(node)
            for attribute in node.attribute:
                waiting += [attribute.g, *attribute.graphs] if attribute.HasField("g") else list(attribute.graphs)
    return nodes

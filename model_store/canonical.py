"""The one form in which models are stored: self-contained, checked, nothing in it that nobody runs.

The walk is `canonicalise`; its order matters. Caps come before anything whose cost they bound, external data before
the payload checks, functions are written out before operators are judged, and ONNX's own checker (native code, which
has crashed before) comes last, on the very bytes that will be stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from model_store import operators
from model_store.archive import Upload
from model_store.contents import Contents, survey
from model_store.entities import Signature
from model_store.errors import InvalidModel
from model_store.payload import BITS, MOST_BYTES, ExternalData, check_tensor, densify
from model_store.signature import free_inputs, read_signature

MOST_VALUE_BYTES = 1 << 31
"""Bytes of one value inside the model whose size is known beforehand; larger ones are only made to exhaust a host."""

_SMALL_TENSOR = 4_096
"""Bytes up to which a weight may be a shape, an index or a limit, and so matters to shape inference."""
_UNCOUNTED = {onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING}
"""Element types of shapes, indices, masks and vocabularies: no parameters."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model once it is canonical. `parameters`: its number of weights."""

    signature: Signature
    parameters: int
    operators: dict[str, int]


def canonicalise(upload: Upload, target: Path) -> Facts:
    """Write the canonical model to `target`. Raises InvalidModel for whatever must not be stored."""
    model = _parse(upload.model)
    external = ExternalData(upload.files, upload.folder, came_alone=not upload.name)
    contents = survey(model)
    for where, tensor in contents.tensors:
        external.inline(where, tensor)
        check_tensor(where, tensor)
    operators.normalise_domains(model, contents)
    operators.check_versions(model)
    model.ClearField("training_info")
    if model.functions:
        model = operators.inline_functions(model)
    contents = survey(model)
    histogram = operators.check_operators(contents)
    operators.drop_unused_domains(model, contents)
    _strip(model, contents)
    _write_out_sparse(contents)
    _fold_away_weight_inputs(model)
    _check_sizes(model)
    signature = read_signature(model)
    _write(model, target)
    _check_natively(target)
    return Facts(signature, _parameters(contents), histogram)


def _parse(data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        # Every ONNX file begins with its IR version: field 1, a small number.
        begins_well = len(data) > 1 and data[0] == 0x08 and data[1] in operators.IR_VERSIONS
        raise InvalidModel(
            f"the model begins like ONNX but is damaged or cut short after {len(data):,} bytes; send it again"
            if begins_well
            else "the upload is not ONNX: it cannot be read as a model; export the model to ONNX and send that file"
        ) from None
    if not model.ir_version or not model.HasField("graph"):
        raise InvalidModel("the upload is not an ONNX model, or it is cut short: it has no IR version or no graph")
    if not model.opset_import:
        raise InvalidModel("the model is cut short or damaged: it does not say which opset it uses")
    if not model.graph.output:
        raise InvalidModel("the graph of the model has no outputs: nothing to serve")
    return model


def _strip(model: onnx.ModelProto, contents: Contents) -> None:
    """Drop texts nobody runs and everybody would have to escape: documentation, metadata, who made it."""
    for name in ("doc_string", "metadata_props", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(name)
    model.ClearField("configuration")
    for graph in contents.graphs:
        graph.ClearField("doc_string")
        graph.ClearField("metadata_props")
        graph.ClearField("quantization_annotation")
        for value in (*graph.input, *graph.output, *graph.value_info):
            value.ClearField("doc_string")
            value.ClearField("metadata_props")
    for node in contents.nodes:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        node.ClearField("device_configurations")
    for attribute in contents.attributes:
        attribute.ClearField("doc_string")
    for _, tensor in contents.tensors:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    model.graph.name = "model"
    model.DiscardUnknownFields()


def _write_out_sparse(contents: Contents) -> None:
    for graph in contents.graphs:
        for sparse in graph.sparse_initializer:
            densify(f"sparse initializer {sparse.values.name[:80]!r}", sparse, graph.initializer.add())
        graph.ClearField("sparse_initializer")
    for attribute in contents.attributes:
        if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
            densify("a sparse constant", attribute.sparse_tensor, attribute.t)
            attribute.ClearField("sparse_tensor")
            attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR


def _fold_away_weight_inputs(model: onnx.ModelProto) -> None:
    """Weights listed as inputs (IR 3, or defaults a caller may replace) become plain weights, so that they fold."""
    free = free_inputs(model.graph)
    if not free:
        raise InvalidModel("the graph of the model has no inputs: it computes a constant")
    if len(free) < len(model.graph.input):
        kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in free]
        model.graph.ClearField("input")
        model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)


def _check_sizes(model: onnx.ModelProto) -> None:
    """Infer shapes, refuse values of absurd size, and give the outputs the shapes they lack.

    Runs on the model without its large weights: their values say nothing about shapes, and copying them is what
    would cost. Inference also evaluates what feeds shapes, so `ConstantOfShape` of a constant 10^12 is found here.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True)
    except onnx.shape_inference.InferenceError as exc:
        raise InvalidModel(f"the shapes of the model contradict one another: {exc}") from None
    found = survey(inferred)
    for graph in found.graphs:
        for value in (*graph.input, *graph.output, *graph.value_info):
            _check_size(value)
    shapes = {value.name: value.type for value in inferred.graph.output}
    for output in model.graph.output:
        tensor = output.type.tensor_type
        if output.type.WhichOneof("value") in (None, "tensor_type") and not (
            tensor.elem_type and tensor.HasField("shape")
        ):
            output.type.CopyFrom(shapes[output.name])


def _check_size(value: onnx.ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim if dim.dim_value > 0]
    count = math.prod(sizes)
    size = count * BITS.get(tensor.elem_type, 64) // 8
    if size > MOST_VALUE_BYTES and not any(
        dim.HasField("dim_value") and dim.dim_value == 0 for dim in tensor.shape.dim
    ):
        shape = "x".join(str(dim.dim_value) if dim.dim_value > 0 else "?" for dim in tensor.shape.dim)
        raise InvalidModel(
            f"the value {value.name[:80]!r} would have the shape {shape}: at least {count:,} elements, "
            f"{size / 1e9:,.1f} GB; at most {MOST_VALUE_BYTES / 1e9:.1f} GB are taken for one value"
        )


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    for name in ("node", "input", "output", "value_info"):
        getattr(graph, name).extend(getattr(model.graph, name))
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) * BITS.get(tensor.data_type, 8) // 8 <= _SMALL_TENSOR:
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return skeleton


def _write(model: onnx.ModelProto, target: Path) -> None:
    # Not asked beforehand with ByteSize(): that would serialise everything once more.
    try:
        data = model.SerializeToString()
    except EncodeError:
        data = b""
    if not 0 < len(data) <= MOST_BYTES:
        raise InvalidModel("the model has more than 2 GiB with its weights; such models are not supported yet")
    target.write_bytes(data)


def _check_natively(target: Path) -> None:
    """ONNX's own checker with strict shape inference, on the file that will be stored."""
    try:
        onnx.checker.check_model(target, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise InvalidModel(f"the ONNX checker refuses the model: {exc}") from None


def _parameters(contents: Contents) -> int:
    return count_parameters(tensor for _, tensor in contents.tensors)


def count_parameters(tensors: Iterable[onnx.TensorProto]) -> int:
    """Elements of the tensors that are weights: rank of at least one, and not of a type used for shapes and indices."""
    return sum(math.prod(t.dims) for t in tensors if t.dims and t.data_type not in _UNCOUNTED)

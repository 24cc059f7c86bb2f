"""The one form in which models are stored: self-contained, checked, nothing in it that nobody runs.

The walk is `canonicalise`; its order matters. Caps come before anything whose cost they bound, external data before
the payload checks, functions are written out before operators are judged, and ONNX's own checker (native code, which
has crashed before) comes last, on the graph that will be stored; the payloads of large weights are checked here alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from model_store import operators
from model_store.archive import Upload
from model_store.contents import Contents, survey
from model_store.entities import Signature
from model_store.errors import InvalidModel
from model_store.payload import ExternalData, check_tensor, densify
from model_store.signature import free_inputs, read_signature
from model_store.sizes import check_sizes
from model_store.weights import without_weights, write_model

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
    light = without_weights(model)
    inferred = check_sizes(light)
    _complete_outputs(model, inferred)
    _complete_outputs(light, inferred)
    signature = read_signature(model)
    _check_natively(light)
    write_model(model, light, target)
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


def _complete_outputs(model: onnx.ModelProto, inferred: onnx.ModelProto) -> None:
    """Give the outputs what the exporter left open."""
    known = {value.name: value.type for value in inferred.graph.output}
    for output in model.graph.output:
        _complete(output.type, known[output.name])


def _complete(declared: onnx.TypeProto, inferred: onnx.TypeProto) -> None:
    """Give an output the type and shape it lacks, and the axes that inference knows."""
    if declared.WhichOneof("value") not in (None, "tensor_type") or inferred.WhichOneof("value") != "tensor_type":
        return
    given, known = declared.tensor_type, inferred.tensor_type
    if not (given.elem_type and given.HasField("shape")):
        declared.CopyFrom(inferred)
        return
    # The first axis stays as declared: whether rows may be batched is proven by running the model, not here.
    for axis, known_axis in list(zip(given.shape.dim, known.shape.dim, strict=False))[1:]:
        if not axis.HasField("dim_value") and known_axis.dim_value > 0:
            axis.dim_value = known_axis.dim_value


def _check_natively(model: onnx.ModelProto) -> None:
    """ONNX's own checker, with strict shape inference."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as exc:  # the native code throws its own kinds and others, about the model all of them
        # Where it cannot even quote the name it complains of, some Pythons are told so and others nothing.
        if isinstance(exc, UnicodeDecodeError) or not str(exc):
            raise InvalidModel("the model holds names that are no valid UTF-8: it is damaged") from None
        raise InvalidModel(f"the ONNX checker refuses the model: {exc}") from None


def _parameters(contents: Contents) -> int:
    return count_parameters(tensor for _, tensor in contents.tensors)


def count_parameters(tensors: Iterable[onnx.TensorProto]) -> int:
    """Elements of the tensors that are weights: rank of at least one, and not of a type used for shapes and indices."""
    return sum(math.prod(t.dims) for t in tensors if t.dims and t.data_type not in _UNCOUNTED)

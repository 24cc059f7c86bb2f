"""The signature as it is read from the graph."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from model_store.entities import TensorSpec
from model_store.errors import InvalidModel
from model_store.signature import read_signature
from tests import zoo


def test_names_datatypes_and_axes_are_read():
    signature = read_signature(zoo.transformer(width=64))
    assert signature.inputs == (
        TensorSpec("input_ids", "INT64", (-1, -1)),
        TensorSpec("attention_mask", "INT64", (-1, -1)),
    )
    assert signature.outputs == (TensorSpec("hidden", "FP32", (-1, -1, 64)),)
    assert signature.has_batch_axis


def test_texts_are_bytes_and_a_scalar_has_no_axes():
    assert read_signature(zoo.strings()).inputs == (TensorSpec("text", "BYTES", (-1,)),)
    assert read_signature(zoo.scalar_output()).outputs == (TensorSpec("mean", "FP32", ()),)


def test_a_fixed_batch_is_no_batch_axis():
    assert not read_signature(zoo.fixed_batch()).has_batch_axis


def test_an_axis_written_as_minus_one_is_dynamic():
    model = zoo.mlp()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert read_signature(model).inputs[0].shape == (-1, 64)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TensorProto.BOOL, "BOOL"), (TensorProto.UINT8, "UINT8"), (TensorProto.INT8, "INT8"),
        (TensorProto.UINT16, "UINT16"), (TensorProto.INT16, "INT16"), (TensorProto.UINT32, "UINT32"),
        (TensorProto.INT32, "INT32"), (TensorProto.UINT64, "UINT64"), (TensorProto.INT64, "INT64"),
        (TensorProto.FLOAT16, "FP16"), (TensorProto.BFLOAT16, "BF16"), (TensorProto.FLOAT, "FP32"),
        (TensorProto.DOUBLE, "FP64"), (TensorProto.STRING, "BYTES"),
    ],
)  # fmt: skip
def test_every_datatype_of_the_protocol_has_its_name(kind, name):
    model = _identity(helper.make_tensor_type_proto(kind, ["N"]))
    assert read_signature(model).inputs[0].datatype == name


@pytest.mark.parametrize(
    ("kind", "words"), [(TensorProto.FLOAT8E4M3FN, "FLOAT8E4M3FN"), (TensorProto.INT4, "INT4"), (0, "no element type")]
)
def test_other_element_types_are_refused_by_name(kind, words):
    with pytest.raises(InvalidModel, match=words):
        read_signature(_identity(helper.make_tensor_type_proto(kind, ["N"])))


def _identity(of):
    values = [helper.make_value_info(name, of) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    return helper.make_model(graph)

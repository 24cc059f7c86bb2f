"""Uploads that are good: what is admitted computes the same, holds everything itself, and nothing else."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store.confinement import Limits
from model_store.entities import TensorSpec
from model_store.errors import InvalidModel
from model_store.intake import Admitted, admit
from tests import zoo

FLOAT = TensorProto.FLOAT
KINDS = [
    zoo.mlp, zoo.transformer, zoo.residual_cnn, zoo.multi_io, zoo.strings, zoo.scalar_output, zoo.fixed_batch,
    zoo.batch_mixing, zoo.simple,
]  # fmt: skip


@pytest.fixture
def take_in(tmp_path):
    def run(upload: bytes | onnx.ModelProto) -> Admitted:
        file = tmp_path / "upload"
        file.write_bytes(upload if isinstance(upload, bytes) else upload.SerializeToString())
        return admit(file, tmp_path / "work")

    return run


def outputs(model: bytes | Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options)
    return list(session.run(None, inputs))


def assert_computes_the_same(original: onnx.ModelProto, admitted: Admitted) -> None:
    inputs = zoo.random_inputs(admitted.signature, rows=2)
    for before, after in zip(
        outputs(original.SerializeToString(), inputs), outputs(admitted.file, inputs), strict=True
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_every_kind_of_model_is_admitted_and_computes_the_same(make, take_in):
    original = make()
    admitted = take_in(original)
    onnx.checker.check_model(admitted.file, full_check=True)
    assert_computes_the_same(original, admitted)


def test_large_weights_keep_their_place(take_in):
    original = zoo.big(megabytes=8)
    half = helper.make_node(
        "Constant", [], ["half"], value=numpy_helper.from_array(np.full((1024, 256), 0.5, np.float32))
    )
    original.graph.node.extend([half, helper.make_node("MatMul", ["y", "half"], ["z"])])
    values = np.arange(256 * 128, dtype=np.float32)
    original.graph.initializer.append(helper.make_tensor("w", FLOAT, [256, 128], values))  # as values, not as bytes
    original.graph.node.append(helper.make_node("MatMul", ["z", "w"], ["out"]))
    original.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", FLOAT, ["N", 128]))
    admitted = take_in(original)
    onnx.checker.check_model(admitted.file, full_check=True)
    assert [spec.name for spec in admitted.signature.inputs] == ["x"]
    assert admitted.parameters == 2 * 1024 * 1024 + 1024 * 256 + 256 * 128
    assert_computes_the_same(original, admitted)


def test_the_facts_are_read_while_it_is_open(take_in):
    admitted = take_in(zoo.mlp(hidden=128, inputs=64, outputs=10))
    assert admitted.signature.inputs == (TensorSpec("x", "FP32", (-1, 64)),)
    assert admitted.signature.outputs == (TensorSpec("y", "FP32", (-1, 10)),)
    assert admitted.parameters == 64 * 128 + 128 + 128 * 10 + 10
    assert admitted.operators == {"Gemm": 2, "Relu": 1}


def test_texts_nobody_runs_are_gone(take_in):
    original = zoo.mlp()
    original.doc_string = original.graph.doc_string = "<script>alert(1)</script>"
    original.producer_name = original.graph.node[0].doc_string = "<script>"
    original.metadata_props.add(key="secret", value="<script>")
    original.graph.node[0].metadata_props.add(key="trace", value="<script>")
    original.graph.initializer[0].doc_string = original.graph.input[0].doc_string = "<script>"
    admitted = take_in(original)
    assert b"script" not in admitted.file.read_bytes()
    assert_computes_the_same(original, admitted)


def test_bytes_of_unknown_meaning_are_gone(take_in):
    admitted = take_in(zoo.mlp().SerializeToString() + b"\xfa\x3f\x06hidden")  # field 1023, a text
    assert b"hidden" not in admitted.file.read_bytes()


def test_the_same_model_twice_is_the_same_bytes(take_in, tmp_path):
    first = take_in(zoo.mlp()).file.read_bytes()
    other = zoo.mlp()
    other.producer_name = "somebody else"
    assert take_in(other).file.read_bytes() == first


# --- external data ---------------------------------------------------------------------------------------------------


def split_model(folder: str = "") -> dict[str, bytes]:
    """An MLP whose weights lie in `weights.bin`, as files of an archive."""
    model, data = zoo.mlp(), bytearray()
    for tensor in model.graph.initializer:
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "weights.bin", "offset": len(data), "length": len(raw)}.items():
            tensor.external_data.add(key=key, value=str(value))
        data += raw
    return {f"{folder}net.onnx": model.SerializeToString(), f"{folder}weights.bin": bytes(data)}


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("folder", ["", "export/"])
@pytest.mark.parametrize("pack", [zip_of, tar_of, lambda files: gzip.compress(tar_of(files))], ids=["zip", "tar", "gz"])
def test_external_data_becomes_part_of_the_model(pack, folder, take_in):
    admitted = take_in(pack(split_model(folder)))
    stored = onnx.load_model(admitted.file, load_external_data=False)
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in stored.graph.initializer)
    assert_computes_the_same(zoo.mlp(), admitted)


def test_what_file_managers_slip_in_does_not_confuse(take_in):
    files = split_model() | {"__MACOSX/._net.onnx": b"x", "._net.onnx": b"x", "README.md": b"hello"}
    assert take_in(zip_of(files)).operators == {"Gemm": 2, "Relu": 1}


# --- odd but honest models -------------------------------------------------------------------------------------------


def test_local_functions_are_written_out(take_in):
    opsets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Neg", ["r"], ["b"])]
    functions = [helper.make_function("me", name, ["a"], ["b"], body, opsets) for name in ("used", "unused")]
    graph = helper.make_graph(
        [helper.make_node("used", ["x"], ["h"], domain="me"), helper.make_node("used", ["h"], ["y"], domain="me")],
        "g", [_floats("x")], [_floats("y")],
    )  # fmt: skip
    original = helper.make_model(
        graph, opset_imports=[*opsets, helper.make_opsetid("me", 1)], functions=functions, ir_version=8
    )
    admitted = take_in(original)
    assert admitted.operators == {"Neg": 2, "Relu": 2}
    stored = onnx.load_model(admitted.file)
    assert not stored.functions and [opset.domain for opset in stored.opset_import] == [""]
    assert_computes_the_same(original, admitted)


def test_weights_listed_as_inputs_are_no_inputs(take_in):
    original = zoo.mlp()
    for tensor in original.graph.initializer:
        original.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    original.ir_version = 3
    admitted = take_in(original)
    assert [spec.name for spec in admitted.signature.inputs] == ["x"]
    assert_computes_the_same(original, admitted)


@pytest.mark.parametrize("indices", [np.array([1, 6]), np.array([[0, 1], [1, 2]])], ids=["flat", "by axis"])
def test_sparse_weights_are_written_out(indices, take_in):
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "w")
    sparse = onnx.SparseTensorProto(values=values, indices=numpy_helper.from_array(indices, "i"), dims=[2, 4])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [_floats("x", 2)], [_floats("y")])
    graph.sparse_initializer.append(sparse)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    admitted = take_in(model)
    (y,) = outputs(admitted.file, {"x": np.array([[1, 10]], np.float32)})
    np.testing.assert_array_equal(y, [[0, 5, 70, 0]])


def test_the_standard_domain_may_be_written_out_and_unused_domains_are_dropped(take_in):
    original = zoo.mlp()
    original.graph.node[0].domain = "ai.onnx"
    original.opset_import.add(domain="com.microsoft.nchwc", version=1)
    admitted = take_in(original)
    assert [opset.domain for opset in onnx.load_model(admitted.file).opset_import] == [""]


def test_operators_of_the_runtime_are_counted_by_their_full_name(take_in):
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    graph = helper.make_graph([node], "g", [_floats("x")], [_floats("y")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    assert take_in(helper.make_model(graph, opset_imports=opsets, ir_version=8)).operators == {"com.microsoft.Gelu": 1}


def test_an_output_without_a_shape_gets_the_inferred_one(take_in):
    original = zoo.mlp()
    original.graph.output[0].type.tensor_type.ClearField("shape")
    assert take_in(original).signature.outputs == (TensorSpec("y", "FP32", (-1, 10)),)


def test_axes_of_outputs_that_inference_knows_are_told(take_in):
    original = zoo.mlp()
    original.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "unknown"
    assert take_in(original).signature.outputs == (TensorSpec("y", "FP32", (-1, 10)),)


def test_a_loop_with_honest_sizes_is_admitted(take_in):
    body = helper.make_graph(
        [
            helper.make_node("Add", ["state", "one"], ["next"]),
            helper.make_node("Identity", ["go"], ["going"]),
        ],
        "body",
        [_scalar("i", TensorProto.INT64), _scalar("go", TensorProto.BOOL), _floats("state")],
        [_scalar("going", TensorProto.BOOL), _floats("next")],
    )
    weights = [
        numpy_helper.from_array(np.array(3, np.int64), "times"),
        numpy_helper.from_array(np.array(True), "go_on"),
        numpy_helper.from_array(np.ones(4, np.float32), "one"),
    ]
    node = helper.make_node("Loop", ["times", "go_on", "x"], ["y"], body=body)
    graph = helper.make_graph([node], "g", [_floats("x")], [_floats("y")], weights)
    admitted = take_in(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    (y,) = outputs(admitted.file, {"x": np.zeros((2, 4), np.float32)})
    np.testing.assert_array_equal(y, np.full((2, 4), 3))


# --- the child -------------------------------------------------------------------------------------------------------


def test_a_checker_that_crashes_is_an_invalid_model(tmp_path, monkeypatch):
    """A module in the place of onnx that does what its native code has done before."""
    (tmp_path / "onnx.py").write_text("import ctypes; ctypes.string_at(0)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InvalidModel, match=r"crashed the checker \(SIGSEGV\)"):
        _admit_mlp(tmp_path)


def test_an_error_we_did_not_foresee_is_an_invalid_model_without_our_paths(tmp_path, monkeypatch):
    (tmp_path / "onnx.py").write_text("open('/nowhere/secret')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InvalidModel, match="could not be checked") as refused:
        _admit_mlp(tmp_path)
    assert "/" not in str(refused.value)


def test_a_checker_that_takes_too_much_memory_is_an_invalid_model(tmp_path, monkeypatch):
    (tmp_path / "onnx.py").write_text("bytearray(64 << 30)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InvalidModel, match="more memory than it may have"):
        _admit_mlp(tmp_path)


def test_a_checker_that_takes_too_long_is_an_invalid_model(tmp_path):
    with pytest.raises(InvalidModel, match="took more than"):
        _admit_mlp(tmp_path, Limits(seconds=0.01))


def test_a_child_that_was_taken_over_cannot_pass_off_a_link_as_the_model(tmp_path, monkeypatch):
    (tmp_path / "onnx.py").write_text(
        "import json, os; os.symlink('/etc/passwd', 'model.onnx');"
        "open('result.json', 'w').write(json.dumps({'signature': {'inputs': [], 'outputs': []}})); os._exit(0)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InvalidModel, match="gave no answer"):
        _admit_mlp(tmp_path)


def _admit_mlp(folder: Path, limits: Limits | None = None) -> Admitted:
    (folder / "upload").write_bytes(zoo.mlp().SerializeToString())
    return admit(folder / "upload", folder / "work", limits)


def _floats(name: str, width: int = 4) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, ["N", width])


def _scalar(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [])

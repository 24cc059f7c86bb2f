"""Uploads that must be refused: each says what is wrong in words a person can act on, and leaves nothing behind.

Every case goes the whole way, through a real child process and a real store.
"""

from __future__ import annotations

import gzip
import io
import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store.errors import InvalidModel
from tests import zoo

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

Bytes = Callable[[], bytes]


def info(name: str, shape: list[Any], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list[onnx.NodeProto], *weights: onnx.TensorProto, opset: int = 17, **options: Any) -> onnx.ModelProto:
    """x: [N, 4] -> y: [N, 4] through `nodes`."""
    graph = helper.make_graph(nodes, "g", [info("x", ["N", 4])], [info("y", ["N", 4])], list(weights))
    opsets = [helper.make_opsetid("", opset), *options.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)


def relu() -> onnx.NodeProto:
    return helper.make_node("Relu", ["x"], ["y"], name="act")


def add_w() -> onnx.NodeProto:
    return helper.make_node("Add", ["x", "w"], ["y"], name="add")


def weight(name: str = "w") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(4, np.float32), name)


def external(location: str, **keys: Any) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **keys}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def with_external(location: str, **keys: Any) -> bytes:
    return model([add_w()], external(location, **keys)).SerializeToString()


def zipped(**files: bytes) -> bytes:
    return zip_of({name.replace("__", "."): data for name, data in files.items()})


def zip_of(files: dict[str, bytes], kind: int = stat.S_IFREG) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (kind | 0o644) << 16 if name != "model.onnx" else (stat.S_IFREG | 0o644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return out.getvalue()


def tar_of(*members: tuple[str, bytes | str], link: bytes = tarfile.SYMTYPE) -> bytes:
    """A member whose content is a text is a link to that name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = link, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def damaged(change: Callable[[onnx.ModelProto], None]) -> bytes:
    subject = model([add_w()], weight())
    change(subject)
    return subject.SerializeToString()


def deep(levels: int) -> bytes:
    """If in If in If: each branch holds the next."""
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "leaf", [], [info("z", ["N", 4])])
    for level in range(levels):
        node = helper.make_node("If", ["c"], ["z"], then_branch=graph, else_branch=graph if level == 0 else None)
        graph = helper.make_graph([node], f"g{level}", [], [info("z", ["N", 4])])
    condition = numpy_helper.from_array(np.array(True), "c")
    return model([*graph.node, helper.make_node("Identity", ["z"], ["y"])], condition).SerializeToString()


def deeper_than_protobuf() -> bytes:
    """Graphs in graphs, written by hand: the library that reads them refuses to write them."""

    def field(number: int, content: bytes) -> bytes:
        size, length = bytearray(), len(content)
        while length > 127:
            size.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2, *size, length]) + content

    graph = b""
    for _ in range(200):
        graph = field(1, field(5, field(6, graph)))  # graph.node.attribute.g
    return b"\x08\x08" + field(7, graph)


def doubling_functions(levels: int) -> bytes:
    """Every function calls the next one twice: 2 to the power of `levels` nodes out of a few hundred bytes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("me", 1)]
    functions = [
        helper.make_function("me", f"f{level}", ["a"], ["c"], [
            helper.make_node(f"f{level + 1}", ["a"], ["b"], domain="me"),
            helper.make_node(f"f{level + 1}", ["b"], ["c"], domain="me"),
        ], opsets) for level in range(levels)
    ]  # fmt: skip
    functions.append(
        helper.make_function("me", f"f{levels}", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)
    )
    call = helper.make_node("f0", ["x"], ["y"], domain="me")
    return model([call], opsets=opsets[1:], functions=functions).SerializeToString()


def recursive_function() -> bytes:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("me", 1)]
    call = helper.make_node("f", ["a"], ["b"], domain="me")
    function = helper.make_function("me", "f", ["a"], ["b"], [call], opsets)
    main = helper.make_node("f", ["x"], ["y"], domain="me")
    return model([main], opsets=opsets[1:], functions=[function]).SerializeToString()


def huge_constant(**how: Any) -> bytes:
    """10^12 elements made out of a shape of one number."""
    size = numpy_helper.from_array(np.array([10**12], np.int64), "size")
    one = numpy_helper.from_array(np.array([1], np.float32), "one")
    nodes = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["size"], ["huge"])],
        "Expand": [helper.make_node("Expand", ["one", "size"], ["huge"])],
        "Tile": [helper.make_node("Tile", ["one", "size"], ["huge"])],
        "RandomNormal": [helper.make_node("RandomNormal", [], ["huge"], shape=[10**6, 10**6])],
        "product": [
            helper.make_node("Constant", [], ["a"], value_ints=[10**6]),
            helper.make_node("Mul", ["a", "a"], ["aa"]),
            helper.make_node("ConstantOfShape", ["aa"], ["huge"]),
        ],
    }[how["by"]]
    top = [helper.make_node("ReduceSum", ["huge"], ["s"], keepdims=1), helper.make_node("Add", ["x", "s"], ["y"])]
    if how.get("inside_if"):
        branch = helper.make_graph([*nodes, top[0]], "branch", [], [info("s", [1])])
        top = [helper.make_node("If", ["c"], ["s"], then_branch=branch, else_branch=branch), top[1]]
        nodes = []
    condition = numpy_helper.from_array(np.array(True), "c")
    return model([*nodes, *top], size, one, condition).SerializeToString()


def in_corner(where: str) -> bytes:
    """External data that escapes, hidden where a hasty check does not look."""
    bad = external("../../etc/passwd")
    match where:
        case "attribute":
            return model([helper.make_node("Constant", [], ["w"], value=bad), add_w()]).SerializeToString()
        case "sparse attribute":
            indices = numpy_helper.from_array(np.arange(4, dtype=np.int64), "i")
            node = helper.make_node("Constant", [], ["w"])
            node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.CopyFrom(
                onnx.SparseTensorProto(values=bad, indices=indices, dims=[4])
            )
            return model([node, add_w()]).SerializeToString()
        case "sparse initializer":
            subject = model([add_w()])
            indices = numpy_helper.from_array(np.arange(4, dtype=np.int64), "i")
            subject.graph.sparse_initializer.append(onnx.SparseTensorProto(values=bad, indices=indices, dims=[4]))
            return subject.SerializeToString()
        case "subgraph":
            branch = helper.make_graph([helper.make_node("Identity", ["w"], ["y2"])], "b", [], [info("y2", [4])], [bad])
            condition = numpy_helper.from_array(np.array(True), "c")
            node = helper.make_node("If", ["c"], ["w4"], then_branch=branch, else_branch=branch)
            return model([node, helper.make_node("Add", ["x", "w4"], ["y"])], condition).SerializeToString()
        case "function":
            opsets = [helper.make_opsetid("", 17)]
            body = [helper.make_node("Constant", [], ["w"], value=bad), helper.make_node("Add", ["a", "w"], ["b"])]
            function = helper.make_function("me", "f", ["a"], ["b"], body, opsets)
            call = helper.make_node("f", ["x"], ["y"], domain="me")
            return model([call], opsets=[helper.make_opsetid("me", 1)], functions=[function]).SerializeToString()
        case "training":
            subject = model([relu()])
            subject.training_info.add().algorithm.initializer.append(bad)
            return subject.SerializeToString()
        case "attribute of another type":
            node = relu()
            attribute = node.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, f=1.0)
            attribute.t.CopyFrom(bad)
            return model([node]).SerializeToString()
    raise AssertionError(where)


def typed_io(**types: onnx.TypeProto) -> bytes:
    subject = model([helper.make_node("Identity", ["x"], ["y"])])
    for value in (*subject.graph.input, *subject.graph.output):
        if value.name in types:
            value.type.CopyFrom(types[value.name])
    return subject.SerializeToString()


@dataclass(frozen=True)
class Case:
    """`says`: what the message must hold."""

    name: str
    upload: Bytes
    says: tuple[str, ...]


GOOD = model([relu()]).SerializeToString
NEEDS_DATA = ("zip or tar.gz that holds the .onnx file and its data",)

CASES = [
    # What is not ONNX at all.
    Case("empty", lambda: b"", ("empty", "send an ONNX file")),
    Case("text", lambda: b"hello, this is not a model", ("not ONNX",)),
    Case("random bytes", lambda: np.random.default_rng(0).bytes(5000), ("ONNX",)),
    Case("pickle", lambda: pickle.dumps({"weights": [1, 2]}), ("pickle", "run code", "torch.onnx.export")),
    Case("torch checkpoint", lambda: zip_of({"m/data.pkl": b"x", "m/version": b"3"}), ("PyTorch", "torch.onnx.export")),
    Case("keras", lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), ("Keras", "tf2onnx")),
    Case("keras zip", lambda: zip_of({"config.json": b"{}", "model.weights.h5": b"x"}), ("Keras", "tf2onnx")),
    Case("tensorrt engine", lambda: b"ptrt" + bytes(99), ("TensorRT engine", "send the ONNX")),
    Case("ort format", lambda: b"\x20\0\0\0ORTM" + bytes(99), (".ort", "send the ONNX")),
    Case("openvino ir", lambda: b"<?xml version='1.0'?><net/>", ("OpenVINO", "send the ONNX")),
    Case("safetensors", lambda: (64).to_bytes(8, "little") + b'{"w":{}}', ("safetensors",)),
    Case("shared library", lambda: b"\x7fELF" + bytes(99), ("custom operators are not accepted",)),
    Case("npz as model", lambda: zip_of({"x.npy": b"\x93NUMPY"}), ("send it as the samples",)),
    Case("truncated", lambda: zoo.mlp().SerializeToString()[:-100], ("cut short",)),
    Case("truncated to two bytes", lambda: GOOD()[:2], ("cut short",)),
    Case("no graph", lambda: onnx.ModelProto(ir_version=8).SerializeToString(), ("no graph",)),
    # Archives.
    Case("two models", lambda: zip_of({"a.onnx": GOOD(), "b.onnx": GOOD()}),
         ("2 ONNX files", "'a.onnx'", "exactly one")),
    Case("no model", lambda: zip_of({"readme.txt": b"hi"}), ("no ONNX file", "'readme.txt'", "exactly one")),
    Case("pickle in zip", lambda: zip_of({"model.onnx": pickle.dumps({})}), ("'model.onnx'", "pickle")),
    Case("zip in zip", lambda: zip_of({"model.onnx": zipped(model__onnx=GOOD())}), ("archive itself",)),
    Case("damaged zip", lambda: zipped(model__onnx=zoo.mlp().SerializeToString())[:-30], ("damaged or cut short",)),
    Case("damaged gzip", lambda: gzip.compress(tar_of(("model.onnx", GOOD())))[:-20], ("damaged or cut short",)),
    Case("gzip of no tar", lambda: gzip.compress(GOOD()), ("damaged or cut short",)),
    Case("zip bomb", lambda: zip_of({"model.onnx": bytes(40 << 20)}), ("100 times", "zip bomb")),
    Case("gzip bomb", lambda: gzip.compress(tar_of(("model.onnx", bytes(40 << 20)))), ("100 times", "zip bomb")),
    Case("zip of many", lambda: zip_of({f"f{i}": b"" for i in range(1001)}), ("more than 1,000 files",)),
    Case("zip with ..", lambda: zip_of({"model.onnx": GOOD(), "../evil": b"x"}), ("'../evil'", "'..' is not allowed")),
    Case("zip absolute", lambda: zip_of({"model.onnx": GOOD(), "/etc/x": b"x"}), ("'/etc/x'", "relative")),
    Case("zip backslash", lambda: zip_of({"model.onnx": GOOD(), "a\\..\\b": b"x"}), ("backslashes",)),
    Case("zip drive", lambda: zip_of({"model.onnx": GOOD(), "c:/x": b"x"}), ("relative",)),
    Case("zip symlink", lambda: zip_of({"model.onnx": GOOD(), "w": b"/etc/passwd"}, stat.S_IFLNK), ("symbolic link",)),
    Case("zip device", lambda: zip_of({"model.onnx": GOOD(), "w": b""}, stat.S_IFCHR), ("a device",)),
    Case("tar symlink", lambda: tar_of(("model.onnx", with_external("w")), ("w", "/etc/passwd")),
         ("'w'", "link to '/etc/passwd'", "not followed")),
    Case("tar hardlink", lambda: tar_of(("model.onnx", with_external("w")), ("w", "model.onnx"), link=tarfile.LNKTYPE),
         ("'w'", "link to 'model.onnx'", "not followed")),
    Case("tar symlinked folder", lambda: tar_of(("d", "/etc"), ("model.onnx", with_external("d/passwd"))),
         ("link to '/etc'",)),
    Case("tar fifo", lambda: tar_of(("model.onnx", GOOD()), ("w", ""), link=tarfile.FIFOTYPE), ("no plain file",)),
    Case("tar twice", lambda: tar_of(("model.onnx", GOOD()), ("./model.onnx", GOOD())), ("two files named",)),
    Case("tar with ..", lambda: tar_of(("model.onnx", GOOD()), ("a/../../evil", b"x")), ("'..' is not allowed",)),
    # External data.
    Case("data did not come", lambda: with_external("w.bin"), ("'w.bin'", "did not come with it", *NEEDS_DATA)),
    Case("data with ..", lambda: with_external("../w.bin"), ("'..' is not allowed",)),
    Case("data absolute", lambda: with_external("/etc/passwd"), ("absolute", "'/etc/passwd'")),
    Case("data backslash", lambda: with_external("..\\w.bin"), ("backslashes",)),
    Case("data in memory", lambda: with_external("*/_ORT_MEM_ADDR_/*", offset=4096), ("memory of a process",)),
    Case("data in zip with ..", lambda: zipped(model__onnx=with_external("a/../../w"), w=bytes(16)), ("'..' is not",)),
    Case("data misspelt", lambda: zipped(model__onnx=with_external("weights.bin"), weigths__bin=bytes(16)),
         ("'weights.bin'", "not in the archive", "'weigths.bin'")),
    Case("data too short", lambda: zipped(model__onnx=with_external("w"), w=bytes(8)), ("0 to 16", "only 8")),
    Case("data offset outside", lambda: zipped(model__onnx=with_external("w", offset=10**15), w=bytes(16)),
         ("only 16",)),
    Case("data offset negative", lambda: zipped(model__onnx=with_external("w", offset=-4), w=bytes(16)),
         ("offset", "'-4'")),
    Case("data length wrong", lambda: zipped(model__onnx=with_external("w", length=8), w=bytes(16)),
         ("takes 16 bytes",)),
    Case("data unknown key", lambda: zipped(model__onnx=with_external("w", basepath="/etc"), w=bytes(16)),
         ("'basepath'",)),
    *(
        Case(f"data escapes from {corner}", lambda corner=corner: in_corner(corner), ("'..' is not allowed",))  # type: ignore[misc]
        for corner in ("attribute", "sparse attribute", "sparse initializer", "subgraph", "function", "training",
                       "attribute of another type")
    ),
    # Tensors that lie.
    Case("negative dimension", lambda: damaged(lambda m: m.graph.initializer[0].dims.__setitem__(0, -4)),
         ("negative",)),
    Case("payload too short", lambda: damaged(lambda m: m.graph.initializer[0].dims.__setitem__(0, 1000)),
         ("'w'", "takes 4,000 bytes", "holds 16")),
    Case("declared 10^12", lambda: damaged(lambda m: m.graph.initializer[0].dims.__setitem__(0, 10**12)),
         ("holds 16",)),
    Case("unknown element type", lambda: damaged(lambda m: setattr(m.graph.initializer[0], "data_type", 99)),
         ("type 99",)),
    Case("bytes and values", lambda: damaged(lambda m: m.graph.initializer[0].float_data.extend([1.0] * 4)),
         ("twice",)),
    Case("two weights of one name", lambda: model([add_w()], weight(), weight()).SerializeToString(),
         ("ONNX checker", "not unique")),
    Case("two large weights of one name", lambda: model([helper.make_node("Gemm", ["x", "l"], ["y"])], *_large_twice())
         .SerializeToString(), ("ONNX checker", "l")),
    Case("segment", lambda: damaged(lambda m: setattr(m.graph.initializer[0].segment, "begin", 1)), ("segments",)),
    Case("sparse 10^12", lambda: _huge_sparse(), ("too large to be written out",)),
    # Values that would exhaust the host.
    *(
        Case(f"huge by {by}", lambda by=by: huge_constant(by=by), ("1000000", "elements", "GB"))  # type: ignore[misc]
        for by in ("ConstantOfShape", "Expand", "Tile", "RandomNormal", "product")
    ),
    Case("huge inside if", lambda: huge_constant(by="ConstantOfShape", inside_if=True), ("elements", "GB")),
    Case("huge input", lambda: _declared_input([10**6, 10**6]), ("'x'", "1,000,000,000,000 elements")),
    # Graphs.
    Case("unknown domain", lambda: model([helper.make_node("Evil", ["x"], ["y"], domain="evil.ops")],
         opsets=[helper.make_opsetid("evil.ops", 1)]).SerializeToString(),
         ("'evil.ops'", "custom operators", "ai.onnx")),
    Case("python operator", lambda: _runtime_node("PyOp"), ("runs Python",)),
    Case("engine in a node", lambda: _runtime_node("EPContext"), ("prebuilt engine", "send the ONNX")),
    Case("unknown runtime operator", lambda: _runtime_node("FastGelus"), ("did you mean FastGelu?",)),
    Case("unknown operator", lambda: model([helper.make_node("Rellu", ["x"], ["y"])]).SerializeToString(), ("Rellu",)),
    Case("operator that is no UTF-8", lambda: GOOD().replace(b"Relu", b"Rel\xff"), ("no valid UTF-8",)),
    Case("value that is no UTF-8", lambda: GOOD().replace(b"\x0a\x01x\x12\x01y", b"\x0a\x01\xff\x12\x01y"), ("UTF-8",)),
    Case("opset too new", lambda: model([relu()], opset=99).SerializeToString(), ("opset 99", "7 to 26")),
    Case("opset too old", lambda: model([relu()], opset=5).SerializeToString(), ("opset 5", "7 to 26")),
    Case("ir too new", lambda: damaged(lambda m: setattr(m, "ir_version", 77)), ("IR version 77", "3 to 13")),
    Case("deep nesting", lambda: deep(20), ("16 deep",)),
    Case("beyond protobuf's own depth", lambda: deeper_than_protobuf(), ("damaged or cut short",)),
    Case("doubling functions", lambda: doubling_functions(40), ("more than 100,000 nodes",)),
    Case("recursive function", recursive_function, ("calls itself",)),
    Case("too many nodes", lambda: _long_chain(100_001), ("more than 100,000 nodes",)),
    Case("undefined input", lambda: model([helper.make_node("Relu", ["nothing"], ["y"])]).SerializeToString(),
         ("nothing",)),
    Case("shapes contradict", lambda: model([helper.make_node("MatMul", ["x", "m"], ["y"])],
         numpy_helper.from_array(np.ones((5, 4), np.float32), "m")).SerializeToString(), ("ONNX checker", "MatMul")),
    Case("no inputs", lambda: damaged(lambda m: m.graph.ClearField("input")), ("no inputs",)),
    Case("no outputs", lambda: damaged(lambda m: m.graph.ClearField("output")), ("no outputs",)),
    # Signatures nobody could serve.
    Case("sequence input", lambda: typed_io(x=helper.make_sequence_type_proto(_floats([4]))),
         ("'x'", "a sequence", "only tensors")),
    Case("map output", lambda: typed_io(y=helper.make_map_type_proto(INT64, _floats([]))),
         ("'y'", "a map", "zipmap=False")),
    Case("optional input", lambda: typed_io(x=helper.make_optional_type_proto(_floats([4]))),
         ("'x'", "an optional")),
    Case("complex input", lambda: typed_io(x=helper.make_tensor_type_proto(TensorProto.COMPLEX64, [4])),
         ("'x'", "COMPLEX64", "FP32")),
    Case("input without shape", lambda: typed_io(x=_floats(None)),
         ("'x'", "no shape", "rank")),
    Case("name with a line break", lambda: GOOD().replace(b"\x0a\x01x", b"\x0a\x01\n"), ("printable",)),
    Case("name that is no UTF-8", lambda: GOOD().replace(b"\x0a\x01x", b"\x0a\x01\xff"), ("UTF-8",)),
]  # fmt: skip


def _large_twice() -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.full((4, 10_000), value, np.float32), "l") for value in (0, 1)]


def _floats(shape: list[int] | None) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(FLOAT, shape)


def _huge_sparse() -> bytes:
    subject = model([add_w()])
    indices = numpy_helper.from_array(np.arange(4, dtype=np.int64), "i")
    subject.graph.sparse_initializer.append(onnx.SparseTensorProto(values=weight(), indices=indices, dims=[10**12]))
    return subject.SerializeToString()


def _declared_input(shape: list[int]) -> bytes:
    subject = model([relu()])
    for value in (subject.graph.input[0], subject.graph.output[0]):
        value.type.CopyFrom(helper.make_tensor_type_proto(FLOAT, shape))
    return subject.SerializeToString()


def _runtime_node(operator: str) -> bytes:
    node = helper.make_node(operator, ["x"], ["y"], domain="com.microsoft")
    return model([node], opsets=[helper.make_opsetid("com.microsoft", 1)]).SerializeToString()


def _long_chain(length: int) -> bytes:
    node = onnx.GraphProto(node=[helper.make_node("Relu", ["x"], ["y"])]).SerializeToString()
    subject = model([relu()])
    return (
        subject.SerializeToString()
        + onnx.ModelProto(graph=onnx.GraphProto.FromString(node * length)).SerializeToString()
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_with_words_that_help_and_nothing_is_kept(case: Case, store, tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(case.upload())
    with pytest.raises(InvalidModel) as refused:
        store.register("m", upload, targets=("ort-cpu",))
    message = str(refused.value)
    for words in case.says:
        assert words in message
    assert message.isprintable() and str(tmp_path) not in message and "Traceback" not in message
    assert store.catalog.models() == () and list(store.blobs.digests()) == []
    assert list(store.work.iterdir()) == [] and list((store.blobs.root / "incoming").iterdir()) == []


def test_an_upload_that_is_a_link_is_not_followed(store, tmp_path):
    (tmp_path / "real.onnx").write_bytes(GOOD())
    link = tmp_path / "link.onnx"
    link.symlink_to("real.onnx")
    with pytest.raises(InvalidModel, match="plain file"):
        store.register("m", link, targets=("ort-cpu",))


def test_an_upload_that_is_a_pipe_does_not_hang(store, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidModel, match="plain file"):
        store.register("m", Path(tmp_path / "pipe"), targets=("ort-cpu",))

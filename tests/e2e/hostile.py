"""Uploads that must be refused, each with what the refusal has to say. Built in code, as an attacker would."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests import zoo


def external(location: str) -> bytes:
    """A valid model whose weight lies in another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    graph = zoo.Graph("external", 0)
    graph.weights.append(weight)
    graph.node("Add", "x", "w", output="y")
    row = (TensorProto.FLOAT, ("N", 4))
    return graph.finish({"x": row}, {"y": row}).SerializeToString()


def zipped(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_onnx", ".onnx"), data)
    return packed.getvalue()


def tarred(kind: bytes, target: str) -> bytes:
    """A tar whose external data is a link."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        model = external("weights.bin")
        info = tarfile.TarInfo("model.onnx")
        info.size = len(model)
        archive.addfile(info, io.BytesIO(model))
        link = tarfile.TarInfo("weights.bin")
        link.type, link.linkname = kind, target
        archive.addfile(link)
    return packed.getvalue()


def zip_symlink() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model.onnx", external("weights.bin"))
        link = zipfile.ZipInfo("weights.bin")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return packed.getvalue()


def foreign_domain() -> bytes:
    model = zoo.mlp()
    model.graph.node[0].domain = "evil.example"
    model.opset_import.append(helper.make_opsetid("evil.example", 1))
    return model.SerializeToString()


def huge_constant() -> bytes:
    """ConstantOfShape of 10^12 elements: a few bytes that ask for four terabytes."""
    graph = zoo.Graph("huge", 0)
    filled = graph.node("ConstantOfShape", graph.constant(np.array([10**12], np.int64)))
    graph.node("Add", "x", graph.node("ReduceSum", filled, keepdims=0), output="y")
    row = (TensorProto.FLOAT, ("N", 4))
    return graph.finish({"x": row}, {"y": row}).SerializeToString()


def context_node() -> bytes:
    """An EPContext node: it may point a runtime at files of the server."""
    model = zoo.mlp()
    node = model.graph.node[0]
    node.op_type, node.domain = "EPContext", "com.microsoft"
    node.attribute.append(helper.make_attribute("ep_cache_context", "/etc/passwd"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model.SerializeToString()


def lying_weight() -> bytes:
    """A weight that says it has more elements than bytes."""
    model = zoo.mlp()
    model.graph.initializer[0].dims[0] = 1 << 20
    return model.SerializeToString()


Upload = Callable[[], bytes]

MODELS: dict[str, tuple[Upload, str]] = {
    "not ONNX": (lambda: b"certainly not a model " * 50, "ONNX"),
    "empty": (lambda: b"", "empty"),
    "truncated": (lambda: zoo.mlp().SerializeToString()[:20_000], "cut short"),
    "a pickle": (lambda: pickle.dumps({"weights": [1.0]}), "pickle"),
    "external data, alone": (lambda: external("weights.bin"), "another file"),
    "external data with ..": (lambda: zipped(model_onnx=external("../weights.bin")), ".."),
    "external data, absolute": (lambda: zipped(model_onnx=external("/etc/passwd")), "absolute"),
    "external data that is missing": (lambda: zipped(model_onnx=external("weights.bin")), "not in the archive"),
    "a symbolic link in a tar": (lambda: tarred(tarfile.SYMTYPE, "/etc/passwd"), "link"),
    "a hard link in a tar": (lambda: tarred(tarfile.LNKTYPE, "/etc/passwd"), "link"),
    "a symbolic link in a zip": (zip_symlink, "symbolic link"),
    "a name with .. in a zip": (lambda: zipped(**{"../model_onnx": zoo.mlp().SerializeToString()}), ".."),
    "a zip bomb": (lambda: zipped(model_onnx=zoo.mlp().SerializeToString(), zeros=bytes(64 << 20)), "zip bomb"),
    "an unknown domain": (foreign_domain, "evil.example"),
    "a constant of 1e12 elements": (huge_constant, "elements"),
    "an EPContext node": (context_node, "EPContext"),
    "a weight larger than its bytes": (lying_weight, "bytes"),
    "no outputs": (lambda: _without_outputs().SerializeToString(), "output"),
}


def _without_outputs() -> onnx.ModelProto:
    model = zoo.mlp()
    model.graph.ClearField("output")
    return model


def _npz(**arrays: np.ndarray) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


X = np.zeros((32, 64), np.float32)

SAMPLES: dict[str, tuple[Upload, str]] = {
    "not an npz": (lambda: b"x,y\n1,2\n", "npz"),
    "a wrong name": (lambda: _npz(xx=X), "'x'"),
    "a wrong dtype": (lambda: _npz(x=np.full((32, 64), "text")), "FP32"),
    "a wrong shape": (lambda: _npz(x=np.zeros((32, 63), np.float32)), "64"),
    "NaN": (lambda: _npz(x=np.where(np.arange(64) == 3, np.nan, X).astype(np.float32)), "NaN"),
    "pickled objects": (lambda: _npz(x=np.array([{"a": 1}] * 32, dtype=object)), "object"),
    "labels of another length": (lambda: _npz(x=X, labels=np.zeros(31, np.int64)), "labels"),
    "an unknown array beside the inputs": (lambda: _npz(x=X, z=X), "'z'"),
}

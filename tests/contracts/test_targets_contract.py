"""One contract, every target: what the gateway's runner and the compile walk rely on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compilers.targets import TARGETS, Built, TargetFailed, Tensors, UnknownTarget, available, load_target
from model_store import datatypes
from tests import zoo

NUMERIC = [name for name in datatypes.NUMPY if name != "BYTES"]


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "uploaded.onnx"
    onnx.save(model, path)
    return path


def blobs(built: Built, folder: Path) -> dict[str, Path]:
    """The artifact as the store holds it: files named by digest, no suffix, read-only."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for index, (name, path) in enumerate(built.files.items()):
        paths[name] = folder / f"{index}f3a9c0de"
        shutil.copy(path, paths[name])
        paths[name].chmod(0o444)
    return paths


@pytest.fixture(params=list(TARGETS))
def target(request):
    return load_target(request.param)


@pytest.fixture
def opened(target, tmp_path):
    """Build a model, store it as blobs, open it with two threads."""

    def open_(model: onnx.ModelProto, **options):
        built = target.build(saved(model, tmp_path), tmp_path, {"precision": "f32", **options})
        return target.open(blobs(built, tmp_path / "blobs"), built.options, threads=2)

    return open_


def expected(model: onnx.ModelProto, inputs: Tensors) -> Tensors:
    """What ONNX's own reference evaluator says."""
    from onnx.reference import ReferenceEvaluator

    names = [output.name for output in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(names, inputs), strict=True))


@pytest.mark.parametrize(
    "make",
    [zoo.mlp, zoo.transformer, zoo.residual_cnn, zoo.multi_io, zoo.scalar_output, zoo.fixed_batch, zoo.simple],
    ids=lambda make: make.__name__,
)
def test_gives_the_right_numbers_under_the_right_names(opened, make):
    model = make()
    inputs = zoo.random_inputs(model, rows=2, seed=1)
    outputs = opened(model).run(inputs)
    for name, array in expected(model, inputs).items():
        assert outputs[name].dtype == array.dtype and outputs[name].shape == array.shape
        np.testing.assert_allclose(outputs[name], array, rtol=2e-3, atol=2e-4)


def test_one_session_takes_any_number_of_rows(opened):
    session = opened(zoo.mlp())
    for rows in (1, 7, 2, 32):
        assert session.run(zoo.random_inputs(zoo.mlp(), rows=rows, seed=0))["y"].shape == (rows, 10)


def test_two_dynamic_axes_may_change_from_run_to_run(opened):
    session = opened(zoo.transformer())
    for rows, length in ((1, 5), (3, 9), (2, 1)):
        ids = np.ones((rows, length), np.int64)
        assert session.run({"input_ids": ids, "attention_mask": ids})["hidden"].shape == (rows, length, 64)


def test_an_answer_outlives_the_next_run(opened):
    session = opened(zoo.mlp())
    first = session.run(zoo.random_inputs(zoo.mlp(), rows=4, seed=1))["y"]
    kept = first.copy()
    session.run(zoo.random_inputs(zoo.mlp(), rows=4, seed=2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("layout", ["read-only", "strided", "empty"])
def test_takes_inputs_as_they_lie(opened, layout):
    session = opened(zoo.mlp())
    x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    wanted = session.run({"x": x[:4].copy()})["y"]
    given = {"read-only": x[:4].copy(), "strided": np.asfortranarray(x[:4]), "empty": x[:0]}[layout]
    given.flags.writeable = layout != "read-only"
    before = given.copy()
    answer = session.run({"x": given})["y"]
    np.testing.assert_array_equal(given, before)
    np.testing.assert_allclose(answer, wanted[: len(given)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("datatype", NUMERIC)
def test_every_numeric_datatype_crosses_unchanged(opened, datatype):
    kind = next(code for code, name in datatypes.ONNX.items() if name == datatype)
    model = passthrough(kind)
    x = np.array([[0, 1], [1, 0], [1, 1]]).astype(datatypes.NUMPY[datatype])
    outputs = opened(model).run({"x": x})
    assert list(outputs) == ["y", "z", "x2"]
    for name in ("y", "z"):
        assert outputs[name].dtype == x.dtype
        np.testing.assert_array_equal(outputs[name], x)
    np.testing.assert_array_equal(outputs["x2"], np.concatenate([x, x]))


def passthrough(kind: int) -> onnx.ModelProto:
    """x -> y = x, z = x, x2 = [x, x]: outputs that conversion is tempted to merge."""
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Identity", ["y"], ["z"]),
        helper.make_node("Concat", ["x", "z"], ["x2"], axis=0),
    ]
    shapes = {"y": ["N", 2], "z": ["N", 2], "x2": ["M", 2]}
    graph = helper.make_graph(
        nodes,
        "passthrough",
        [helper.make_tensor_value_info("x", kind, ["N", 2])],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("wrong", ["missing", "extra", "dtype", "rank", "size"])
def test_wrong_inputs_are_a_target_failure_and_the_session_lives_on(opened, wrong):
    session = opened(zoo.simple())
    good = zoo.random_inputs(zoo.simple(), rows=2, seed=0)
    session.run(good)
    bad = {
        "missing": {"INPUT0": good["INPUT0"]},
        "extra": {**good, "INPUT2": good["INPUT0"]},
        "dtype": {**good, "INPUT0": good["INPUT0"].astype(np.float32)},
        "rank": {**good, "INPUT0": good["INPUT0"][0]},
        "size": {**good, "INPUT0": good["INPUT0"][:, :3]},
    }[wrong]
    with pytest.raises(TargetFailed):
        session.run(bad)
    np.testing.assert_array_equal(session.run(good)["OUTPUT0"], good["INPUT0"] + good["INPUT1"])


def test_files_that_are_no_model_are_a_target_failure(target, tmp_path):
    built = target.build(saved(zoo.mlp(), tmp_path), tmp_path, {"precision": "f32"})
    for path in (garbage := blobs(built, tmp_path / "garbage")).values():
        path.chmod(0o644)
        path.write_bytes(b"\x08\x07garbage")
    with pytest.raises(TargetFailed):
        target.open(garbage, built.options, threads=1)


def test_an_operator_nobody_knows_is_a_target_failure(target, tmp_path):
    model = zoo.mlp()
    model.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(TargetFailed, match="Frobnicate"):
        built = target.build(saved(model, tmp_path), tmp_path, {"precision": "f32"})
        target.open(built.files, built.options, threads=1)


def test_fingerprint_and_name_load_no_runtime():
    code = (
        "import sys\n"
        "from compilers.targets import TARGETS, load_target\n"
        "assert all(load_target(name).fingerprint() for name in TARGETS)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}"
        " & {'onnx', 'onnxruntime', 'openvino', 'sqlalchemy', 'nncf', 'pydantic'}))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("name", list(TARGETS))
def test_opening_a_session_needs_the_runtime_alone(name, tmp_path):
    target = load_target(name)
    built = target.build(saved(zoo.mlp(), tmp_path), tmp_path, {"precision": "f32"})
    files = {file: str(path) for file, path in blobs(built, tmp_path / "blobs").items()}
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from compilers.targets import load_target\n"
        f"files = {{name: Path(path) for name, path in {files!r}.items()}}\n"
        f"load_target({name!r}).open(files, {dict(built.options)!r}, 1)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'onnx', 'sqlalchemy', 'nncf', 'scipy'}))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_opening_a_session_leaves_no_trace_of_telemetry(target, tmp_path):
    built = target.build(saved(zoo.mlp(), tmp_path), tmp_path, {"precision": "f32"})
    files = {file: str(path) for file, path in built.files.items()}
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from compilers.targets import load_target\n"
        f"files = {{name: Path(path) for name, path in {files!r}.items()}}\n"
        f"load_target({target.name!r}).open(files, {dict(built.options)!r}, 1)\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], sys.modules.get('openvino_telemetry'))\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.strip() == "1 None" and list(home.iterdir()) == []


@pytest.mark.parametrize(("threads", "instances"), [(1, 1), (1, 3), (2, 2)])
def test_runs_from_many_threads_each_get_their_own_answer(target, tmp_path, threads, instances):
    model = zoo.residual_cnn()
    built = target.build(saved(model, tmp_path), tmp_path, {"precision": "f32"})
    session = target.open(built.files, built.options, threads, instances)
    inputs = [zoo.random_inputs(model, rows=1 + n % 3, seed=n) for n in range(40)]
    with ThreadPoolExecutor(instances + 2) as callers:
        answers = list(callers.map(session.run, inputs))
    alone = target.open(built.files, built.options, threads=1)
    for given, answer in zip(inputs, answers, strict=True):
        for name, wanted in alone.run(given).items():
            np.testing.assert_allclose(answer[name], wanted, rtol=1e-4, atol=1e-5)


def test_an_instance_whose_run_failed_runs_again(target, tmp_path):
    built = target.build(saved(zoo.mlp(), tmp_path), tmp_path, {"precision": "f32"})
    session = target.open(built.files, built.options, threads=2, instances=2)
    for _ in range(4):
        with pytest.raises(TargetFailed):
            session.run({"x": np.ones((2, 63), np.float32)})
    assert session.run(zoo.random_inputs(zoo.mlp(), rows=2, seed=0))["y"].shape == (2, 10)


def test_an_unknown_target_is_answered_with_the_nearest():
    with pytest.raises(UnknownTarget, match="did you mean 'openvino-cpu'"):
        load_target("openvino_cpu")


def test_everything_installed_here_is_available():
    assert set(available()) == set(TARGETS)


def test_bfloat16_crosses(target, tmp_path):
    import ml_dtypes

    built = target.build(saved(passthrough(TensorProto.BFLOAT16), tmp_path), tmp_path, {"precision": "f32"})
    session = target.open(built.files, built.options, threads=1)
    x = np.array([[0.5, -3.0]], dtype=ml_dtypes.bfloat16)
    answer = session.run({"x": x})
    assert answer["y"].dtype == x.dtype and (answer["x2"] == np.concatenate([x, x])).all()
    assert session.run({"x": x[:0]})["y"].shape == (0, 2)

"""What is particular to one target: its options, its strings, its errors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from compilers import hardware
from compilers.targets import TargetFailed
from compilers.targets import openvino as ov_target
from compilers.targets import ort as ort_target
from tests import zoo


@pytest.fixture
def model_file(tmp_path):
    def save(model):
        onnx.save(model, tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return save


def test_the_reference_is_the_uploaded_file_itself(model_file, tmp_path):
    path = model_file(zoo.mlp())
    built = ort_target.OrtCpu().build(path, tmp_path, {"precision": "f32", "reference": True})
    assert built.files == {"model.onnx": path} and built.options == {"precision": "f32", "reference": True}


def test_ort_strings_go_in_as_bytes_or_text_and_come_out_as_bytes(model_file, tmp_path):
    target = ort_target.OrtCpu()
    session = target.open({"model.onnx": model_file(zoo.strings())}, {"precision": "f32"}, threads=1)
    given = np.array([b"plain", "gr\u00fcn", b"", b"nul\x00inside\x00"], dtype=object)
    (answer,) = session.run({"text": given}).values()
    assert answer.tolist() == [b"plain", "gr\u00fcn".encode(), b"", b"nul\x00inside\x00"]


def test_ort_refuses_bytes_that_are_no_text(model_file):
    session = ort_target.OrtCpu().open({"model.onnx": model_file(zoo.strings())}, {}, threads=1)
    with pytest.raises(TargetFailed, match="utf-8"):
        session.run({"text": np.array([b"\xff"], dtype=object)})


def test_ort_sessions_are_opened_with_every_option_set():
    options = ort_target.session_options(3)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_every_ort_error_crosses_the_bridge():
    import onnxruntime.capi.onnxruntime_pybind11_state as state

    kinds = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) >= 15
    for kind in kinds:
        with pytest.raises(TargetFailed, match="ort-cpu run: told"), ort_target.ort_errors("run"):
            raise kind("told")


def test_every_openvino_error_crosses_the_bridge():
    import openvino

    modules = (openvino, openvino._pyopenvino, openvino.frontend, openvino.exceptions)
    found = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    kinds = {kind for kind in found if issubclass(kind, Exception)}
    assert len(kinds) >= 8
    for kind in kinds:
        with pytest.raises(TargetFailed, match="openvino-cpu open: told"), ov_target.openvino_errors("open"):
            raise kind("Exception from src/somewhere.cpp:12:\ntold")


def test_openvino_refuses_strings_by_name(model_file, tmp_path):
    with pytest.raises(TargetFailed, match=r"no string tensors .* text"):
        ov_target.OpenVinoCpu().build(model_file(zoo.strings()), tmp_path, {"precision": "f32"})


def test_openvino_refuses_a_precision_it_does_not_know(model_file, tmp_path):
    with pytest.raises(TargetFailed, match="precision is one of"):
        ov_target.OpenVinoCpu().build(model_file(zoo.mlp()), tmp_path, {"precision": "fp8"})


@pytest.mark.parametrize(("precision", "hint"), [("f32", "f32"), ("bf16", "bf16"), ("int8", "f32")])
def test_openvino_precision_is_always_explicit(model_file, tmp_path, precision, hint):
    built = ov_target.OpenVinoCpu().build(model_file(zoo.mlp()), tmp_path, {"precision": precision})
    assert built.options == {"precision": precision, "inference_precision": hint}
    assert ov_target.properties(built.options, threads=2)["INFERENCE_PRECISION_HINT"] == hint


def test_openvino_f32_is_f32_even_on_a_cpu_with_bf16(model_file, tmp_path):
    model = zoo.mlp()
    inputs = zoo.random_inputs(model, rows=8, seed=0)
    reference = ort_target.OrtCpu().open({"model.onnx": model_file(model)}, {}, threads=2).run(inputs)["y"]
    target = ov_target.OpenVinoCpu()
    built = target.build(model_file(model), tmp_path, {"precision": "f32"})
    answer = target.open(built.files, built.options, threads=2).run(inputs)["y"]
    assert np.linalg.norm(reference - answer) < 1e-5 * np.linalg.norm(reference)


def test_openvino_keeps_float_weights_whole(model_file, tmp_path):
    built = ov_target.OpenVinoCpu().build(model_file(zoo.big(2)), tmp_path, {"precision": "f32"})
    assert built.files["model.bin"].stat().st_size > 1.9e6


def test_hardware_is_told_in_words():
    told = hardware.fingerprint()
    assert told["cpu"] and int(told["cores"]) >= 1 and set(told["flags"].split()) <= set(hardware.FLAGS_THAT_MATTER)

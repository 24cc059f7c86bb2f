"""What the tests of quantizers share: models that are hard to round, and how near two answers are."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compilers.targets.ort import OrtCpu


def outputs_of(model, inputs, folder, target=OrtCpu):
    onnx.save(model, folder / "m.onnx")
    files = {"model.onnx": folder / "m.onnx"}
    if target is not OrtCpu:
        built = target().build(folder / "m.onnx", folder, {"precision": "int8", "inference_precision": "f32"})
        return target().open(built.files, built.options, threads=1).run(inputs)
    return target().open(files, {}, threads=1).run(inputs)


def sqnr(expected, got):
    return 20 * np.log10(np.linalg.norm(expected) / (np.linalg.norm(expected - got) or 1e-30))


def correlated(rows, width, seed):
    """Features as a Relu leaves them: a few causes mixed into many."""
    random = np.random.default_rng(7)
    mixing = random.standard_normal((width // 4, width)) / np.sqrt(width // 4)
    noise = np.random.default_rng(seed)
    causes = noise.standard_normal((rows, width // 4)) @ mixing
    return np.maximum(causes + 0.3 * noise.standard_normal((rows, width)), 0).astype(np.float32)


def deep_gemm(outputs=32, inputs=256):
    random = np.random.default_rng(0)
    weight = (random.standard_normal((inputs, outputs)) / 16).astype(np.float32)
    weight[0] = 4.0  # makes the steps coarse
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm")],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(outputs, np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

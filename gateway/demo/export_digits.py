"""Write the trained network as ONNX (opset 17, dynamic batch), batch normalisation as nodes of its own."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gateway.demo.digits import SIDE
from gateway.demo.network import Block, Head, Network, Residual


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def block(self, name: str, x: str, block: Block) -> str:
        convolution, norm = block.convolution, block.norm
        kernel = self.weight(f"{name}.weight", convolution.onnx_weight())
        stride = [convolution.stride, convolution.stride]
        self._add("Conv", [x, kernel], f"{name}.conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=stride)
        parts = {"scale": norm.scale.value, "shift": norm.shift.value, "mean": norm.mean, "variance": norm.variance}
        weights = [self.weight(f"{name}.{part}", value) for part, value in parts.items()]
        self._add("BatchNormalization", [f"{name}.conv", *weights], f"{name}.norm", epsilon=norm.EPSILON)
        return self._add("Relu", [f"{name}.norm"], f"{name}.out")

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def add(self, x: str, y: str, output: str) -> str:
        return self._add("Add", [x, y], output)

    def head(self, x: str, weight: np.ndarray, bias: np.ndarray) -> None:
        self._add("GlobalAveragePool", [x], "pool")
        self._add("Flatten", ["pool"], "flat", axis=1)
        weights = [self.weight("head.weight", weight), self.weight("head.bias", bias)]
        self._add("Gemm", ["flat", *weights], "logits")


def export(net: Network) -> bytes:
    """The model as bytes, checked in full."""
    graph, x = _Graph(), "image"
    for index, layer in enumerate(net.layers):
        if isinstance(layer, Block):
            x = graph.block(f"block{index}", x, layer)
        elif isinstance(layer, Residual):
            inner = graph.block(f"residual{index}a", x, layer.first)
            x = graph.add(x, graph.block(f"residual{index}b", inner, layer.second), f"residual{index}")
        elif isinstance(layer, Head):
            graph.head(x, layer.weight.value, layer.bias.value)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "digits",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())

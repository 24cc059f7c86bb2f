"""The demo's model is what its script says it is: accurate on held-out digits, right gradients, a faithful export."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
import pytest

from gateway.demo import digits
from gateway.demo.export_digits import export
from gateway.demo.network import Block, Head, Network, Residual
from gateway.demo.train_digits import cross_entropy


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


def small_network(random: np.random.Generator) -> Network:
    return Network([Block(random, 1, 4), Block(random, 4, 6, stride=2), Residual(random, 6), Head(random, 6)])


def test_committed_model_reads_held_out_digits() -> None:
    data = digits.load()
    (logits,) = session(digits.MODEL.read_bytes()).run(None, {"image": data.held_out.images})
    assert (len(data.training.labels), len(data.held_out.labels)) == (1000, 797)
    assert (logits.argmax(1) == data.held_out.labels).mean() >= 0.985


def test_committed_model_is_small_and_leaves_batch_norm_to_be_folded() -> None:
    model = onnx.load_from_string(digits.MODEL.read_bytes())
    assert digits.MODEL.stat().st_size < 1_000_000
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 7
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_prepared_images_keep_ink_and_paper() -> None:
    corner = np.zeros((1, 8, 8))
    corner[0, 0, 0] = 16
    image = digits.prepare(corner)
    assert image.shape == (1, 1, 32, 32)
    assert image[0, 0, 0, 0] == pytest.approx(1)
    assert image[0, 0, -1, -1] == -1
    assert digits.prepare(np.full((1, 8, 8), 8.0)) == pytest.approx(np.zeros((1, 1, 32, 32)), abs=1e-6)


def test_gradients_are_those_of_the_loss() -> None:
    random = np.random.default_rng(0)
    net, labels = small_network(random), np.array([3, 1, 4, 1])
    images = random.standard_normal((4, 1, 8, 8))
    for weight in net.weights():
        weight.value = weight.value.astype(np.float64)

    def loss() -> float:
        return cross_entropy(net.forward(images, training=True), labels)[0]

    net.backward(cross_entropy(net.forward(images, training=True), labels)[1])
    for weight in net.weights():
        index = tuple(int(random.integers(size)) for size in weight.value.shape)
        claimed, kept = weight.gradient[index], weight.value[index]
        weight.value[index] = kept + 1e-4
        above = loss()
        weight.value[index] = kept - 1e-4
        below = loss()
        weight.value[index] = kept
        assert claimed == pytest.approx((above - below) / 2e-4, rel=0.02, abs=1e-4)


def test_export_computes_what_the_network_computes() -> None:
    random = np.random.default_rng(1)
    net = small_network(random)
    images = random.standard_normal((5, 1, digits.SIDE, digits.SIDE)).astype(np.float32)
    net.forward(images, training=True)
    for block in net.blocks():
        block.norm.settle()
    assert session(export(net)).run(None, {"image": images})[0] == pytest.approx(net.forward(images), abs=1e-4)

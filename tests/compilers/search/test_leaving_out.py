"""What no calibration saves: a model with a few nodes that no low precision holds keeps them, and only them, in float.

The difference of two convolutions that are nearly the same is what all the rest reads: whatever rounds one of the two
loses it, and everything behind is as robust as any network.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from compilers import hardware
from model_store.entities import JobState, Verdict
from tests import zoo
from tests.compilers.compiling import ended, events, register, variants, working

pytestmark = [pytest.mark.xdist_group("search"), pytest.mark.timeout(300)]

SOFTEST = {"/one", "/other"}


def cancelling(apart: float, width: int = 128) -> onnx.ModelProto:
    """image: [N, 16, 16, 16] -> scores: [N, 10]. `apart`: the two convolutions' difference over their size."""
    g = zoo.Graph("cancelling", seed=3)
    one = g.random.standard_normal((16, 16, 1, 1)).astype(np.float32)
    other = one + apart * g.random.standard_normal(one.shape).astype(np.float32)
    pair = (
        g.node("Conv", "image", g.constant(weight), kernel_shape=[1, 1], output=name)
        for name, weight in (("one", one), ("other", other))
    )
    x, inputs = g.node("Mul", g.node("Sub", *pair, output="difference"), g.constant(np.float32(0.25 / apart))), 16
    for _ in range(3):
        weight = g.floats(width, inputs, 3, 3)
        x, inputs = g.node("Relu", g.node("Conv", x, weight, kernel_shape=[3, 3], pads=[1] * 4)), width
    pooled = g.node("Flatten", g.node("GlobalAveragePool", x), axis=1)
    g.node("Gemm", pooled, g.floats(width, 10), g.floats(10, scale=0.1), output="scores")
    image = {"image": (zoo.FLOAT, ("N", 16, 16, 16))}
    return g.finish(image, {"scores": (zoo.FLOAT, ("N", 10))})


def compiled(store, model, target, **policy):
    samples = zoo.random_inputs(model, 120, seed=1)
    asked = {"rows": [8], "budget_seconds": 100, "budget_trials": 1, "search": {"effort": "auto"}, **policy}
    _, jobs = register(store, "cancelling", model, samples=samples, targets=[target], **asked)
    with working(store):
        assert {job.state for job in ended(store, jobs, 250)} == {JobState.SUCCEEDED}
    return variants(store, "cancelling"), events(store, jobs)


def rescued(found, name):
    """The variant that the reason of a candidate says it was rescued as."""
    assert found[name].verdict is Verdict.REJECTED
    return found[found[name].reason.rpartition("rescued as ")[2]]


def test_int8_is_rescued_by_the_fewest_nodes_left_in_float(store):
    found, told = compiled(store, cancelling(apart=0.01), "ort-cpu", techniques=["int8"], gate={"sqnr_db": 20})
    served = rescued(found, "ort-cpu.int8-static")
    assert served.id == "ort-cpu.int8-static-but2"
    assert served.verdict is Verdict.SERVING
    assert set(served.evidence.recipe["passes"][-1]["params"]["exclude"]) == SOFTEST
    assert set(list(served.evidence.sensitivity)[:2]) == SOFTEST
    share = served.evidence.precision_share
    assert share["int8"] > 0.9 and share["f32"] > 0
    tried = [event.data["without"] for event in told if event.step == "search" and event.status == "progress"]
    assert tried == [0, 1, 2], "doubled until it was enough"


@pytest.mark.skipif(not hardware.has_bf16(), reason="needs a CPU that multiplies bfloat16")
def test_bf16_is_rescued_by_a_cast_that_spares_the_fewest_nodes(store):
    techniques = ["mixed-precision"]
    found, _ = compiled(store, cancelling(apart=0.001), "openvino-cpu", techniques=techniques, gate={"sqnr_db": 30})
    assert found["openvino-cpu.bf16"].evidence.agreement.sqnr_db < 25
    served = rescued(found, "openvino-cpu.bf16")
    assert served.verdict is Verdict.SERVING
    kept = set(served.evidence.recipe["passes"][-1]["params"]["keep"])
    assert kept >= SOFTEST and len(kept) <= 5
    assert served.evidence.agreement.sqnr_db > 30
    share = served.evidence.precision_share
    assert share["bf16"] > 0.9 and share["f32"] > 0
    assert served.artifact.options["inference_precision"] == "f32", "the graph itself says what is bf16"


@pytest.mark.skipif(not hardware.has_bf16(), reason="needs a CPU that multiplies bfloat16")
def test_where_int8_cannot_be_rescued_bf16_serves_and_the_reason_says_so(store):
    model = zoo.residual_cnn(channels=64, blocks=1)
    asked = {"techniques": ["int8", "mixed-precision"], "gate": {"sqnr_db": 48}}  # beyond any 8 bits
    found, _ = compiled(store, model, "openvino-cpu", **asked)
    assert found["openvino-cpu.bf16"].verdict is Verdict.SERVING
    told = found["openvino-cpu.int8"]
    assert told.verdict is Verdict.REJECTED
    assert "the gate asks 48 dB" in told.reason
    assert "not rescued, openvino-cpu.bf16 serves instead: " in told.reason

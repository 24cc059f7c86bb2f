"""Logarithmic and additive-power-of-two weights: as exact as the theory says, stable, and small once packed."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compilers.passes import PassFailed, run_passes
from compilers.passes.log_quantize import LogQuantize, additive_levels
from compilers.recipe import PassSpec, candidates
from model_store.blobs import LocalBlobs
from model_store.entities import Verdict
from model_store.policy import Policy
from model_store.store import ModelStore
from tests import zoo
from tests.compilers.compiling import ended, register, variants, working

NORMAL = np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)


def sqnr_db(weights: np.ndarray, after: np.ndarray) -> float:
    return float(20 * np.log10(np.linalg.norm(weights) / np.linalg.norm(weights - after)))


@pytest.mark.parametrize(
    ("steps", "expected_db"), [(1, 14.0), (2, 20.0), (4, 26.0)], ids=["base 2", "root of 2", "fourth root"]
)
@pytest.mark.parametrize("bits", [7, 8])
def test_the_ratio_saturates_where_the_base_says(steps: int, expected_db: float, bits: int) -> None:
    after = LogQuantize(bits=bits, steps=steps).quantize(NORMAL, 0)
    assert sqnr_db(NORMAL, after) == pytest.approx(expected_db, abs=0.3)


def test_additive_powers_gain_with_every_bit() -> None:
    ratios = [sqnr_db(NORMAL, LogQuantize(bits=bits, apot=True).quantize(NORMAL, 0)) for bits in range(4, 9)]
    assert ratios == sorted(ratios)
    assert ratios[0] > 17 and ratios[2] > 26.5 and ratios[-1] > 34


def test_additive_levels_are_those_of_the_paper() -> None:
    """Four bits of magnitude: {0, 1, 2^-2, 2^-4} + {0, 2^-1, 2^-3, 2^-5}, the largest sum 1.5 being one."""
    terms = [a + b for a in (0, 1, 1 / 4, 1 / 16) for b in (0, 1 / 2, 1 / 8, 1 / 32)]
    np.testing.assert_allclose(additive_levels(5), np.array(sorted(terms)) / 1.5)
    for bits in range(4, 9):
        assert len(set(additive_levels(bits))) == 1 << (bits - 1)


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_every_value_is_a_level_and_a_channel_has_no_more_than_its_bits_allow(bits: int, steps: int) -> None:
    after = LogQuantize(bits=bits, steps=steps).quantize(NORMAL, 0)
    assert after.dtype == np.float32 and after.shape == NORMAL.shape
    held = np.abs(after[after != 0].astype(np.float64))
    np.testing.assert_allclose(steps * np.log2(held), np.round(steps * np.log2(held)), atol=1e-5)
    assert max(len(np.unique(row)) for row in after) <= (1 << bits) - 1


@settings(max_examples=60, deadline=None)
@example(bits=7, steps=1, apot=True, axis=0, seed=0, magnitude=0.0)
@given(
    st.integers(4, 8), st.sampled_from([1, 2, 4]), st.booleans(), st.sampled_from([None, 0, 1, -1]),
    st.integers(0, 2**32 - 1), st.floats(-12, 12),
)  # fmt: skip
def test_what_is_on_the_grid_stays_and_comes_back_from_the_store(
    bits: int, steps: int, apot: bool, axis: int | None, seed: int, magnitude: float
) -> None:
    random = np.random.default_rng(seed)
    weights = (random.standard_normal((6, 5, 3)) * 10.0**magnitude).astype(np.float32)
    weights[random.random(weights.shape) < 0.2] = 0
    quantize = LogQuantize(bits, steps, apot)
    once = quantize.quantize(weights, axis)
    assert np.isfinite(once).all() and np.array_equal(quantize.quantize(once, axis), once)
    assert not np.signbit(once[once == 0]).any()
    assert (once * weights >= 0).all()


def test_packed_it_takes_a_few_bits_a_weight(tmp_path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    after = LogQuantize().quantize(NORMAL, 0).tobytes()
    digest = blobs.put_bytes(after)
    assert len(after) / blobs.pack(digest).kept > 5.5
    assert blobs.path(digest).read_bytes() == after


def test_channels_are_where_each_operator_has_them() -> None:
    graph = zoo.Graph("axes", seed=1)
    table = graph.constant((graph.random.standard_normal((64, 32)) * np.exp2(np.arange(64) % 7)[:, None]).astype("f4"))
    x = graph.node("Gather", table, "ids")
    wide = graph.constant((graph.random.standard_normal((32, 48)) * np.exp2(np.arange(48) % 9)).astype("f4"))
    graph.node("MatMul", x, wide, output="y")
    model = graph.finish({"ids": (onnx.TensorProto.INT64, ("N",))}, {"y": (onnx.TensorProto.FLOAT, ("N", 48))})
    after = run_passes(model, [PassSpec("log-quantize", {"bits": 5, "steps": 2})])
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    for name, axis in ((table, 0), (wide, 1)):
        channels = np.moveaxis(held[f"{name}_log"], axis, 0)
        assert max(len(np.unique(np.abs(channel))) for channel in channels) <= 16
    assert set(held) == {f"{table}_log", f"{wide}_log"}, "the weights they replace are gone"


def test_a_weight_with_two_readers_is_quantized_once() -> None:
    graph = zoo.Graph("tied", seed=1)
    weight = graph.floats(64, 64)
    graph.node("MatMul", graph.node("MatMul", "x", weight), weight, output="y")
    shape = {"x": (onnx.TensorProto.FLOAT, ("N", 64))}, {"y": (onnx.TensorProto.FLOAT, ("N", 64))}
    after = run_passes(graph.finish(*shape), [PassSpec("log-quantize")])
    assert [node.input[1] for node in after.graph.node] == [f"{weight}_log"] * 2
    assert len(after.graph.initializer) == 1


@pytest.mark.parametrize(
    ("params", "words"), [({"bits": 3}, "4 to 8"), ({"bits": 9}, "4 to 8"), ({"steps": 3}, "1, 2 or 4")]
)
def test_other_parameters_are_refused_in_words(params: dict[str, int], words: str) -> None:
    with pytest.raises(PassFailed, match=words):
        run_passes(zoo.mlp(), [PassSpec("log-quantize", params)])


def test_small_weights_are_left_alone() -> None:
    with pytest.raises(ir.passes.PreconditionError, match="nothing to quantize"):
        LogQuantize()(ir.from_proto(zoo.mlp(hidden=8, inputs=8)))


@pytest.mark.parametrize(
    ("policy", "offered"),
    [
        ({}, False),
        ({"techniques": ["fusion", "int8"]}, False),
        ({"techniques": ["log"]}, True),
        ({"objective": "size"}, True),
        ({"objective": "size", "techniques": ["int8"]}, False),
    ],
)
@pytest.mark.parametrize("target", ["ort-cpu", "openvino-cpu"])
def test_it_is_offered_where_bytes_count(target: str, policy: dict[str, object], offered: bool) -> None:
    names = {recipe.name for recipe in candidates(target, {"Gemm": 2}, Policy.model_validate(policy))}
    assert ("log" in names) is offered


def test_a_compiled_variant_is_judged_by_the_gate_and_kept_packed(tmp_path) -> None:
    store = ModelStore.open(tmp_path / "data")
    model = zoo.mlp(hidden=512, inputs=256)
    samples = {"x": np.random.default_rng(5).standard_normal((60, 256)).astype(np.float32)}
    _, jobs = register(store, "small", model, samples=samples, techniques=["log"], rows=[1], budget_seconds=60)
    with working(store):
        ended(store, jobs)
        found = variants(store, "small")["ort-cpu.log"]
    assert found.verdict in (Verdict.SERVING, Verdict.ELIGIBLE), found.reason
    assert found.evidence is not None and found.evidence.agreement is not None and found.artifact is not None
    assert found.evidence.agreement.sqnr_db > 20 and found.evidence.precision_share == {"f32": pytest.approx(1.0)}
    assert found.artifact.stored_bytes == found.size_bytes < found.artifact.size_bytes / 4
    assert store.blobs.footprint(found.artifact.files["model.onnx"]).packed is not None
    store.close()

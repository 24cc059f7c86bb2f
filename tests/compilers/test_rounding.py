"""Weights rounded by what reaches them lose less than weights rounded to the nearest."""

import numpy as np
import pytest

from compilers.passes import PassFailed, run_passes
from compilers.passes.gptq import gptq
from compilers.recipe import PassSpec
from tests.compilers.quantized import correlated, deep_gemm, outputs_of, sqnr


def test_rounding_by_the_gram_matrix_beats_the_nearest_where_inputs_are_correlated():
    weight = np.random.default_rng(0).standard_normal((256, 256)) / 16
    seen, held_out = correlated(1024, 256, 1), correlated(512, 256, 2)
    scale = np.abs(weight).max(axis=1) / 7  # 4 bits
    nearest = np.clip(np.rint(weight / scale[:, None]), -7, 7) * scale[:, None]
    better = gptq(weight, seen.T @ seen, scale[:, None], -7, 7) * scale[:, None]
    expected = held_out @ weight.T
    assert np.abs(better / scale[:, None] - np.rint(better / scale[:, None])).max() < 1e-9
    assert sqnr(expected, held_out @ better.T) > sqnr(expected, held_out @ nearest.T) + 3


def test_rounding_by_a_diagonal_gram_matrix_is_rounding_to_the_nearest():
    weight = np.random.default_rng(0).standard_normal((8, 16))
    scale = np.abs(weight).max(axis=1) / 127
    got = gptq(weight, np.diag(np.arange(1.0, 17.0)), scale[:, None], -127, 127)
    np.testing.assert_array_equal(got, np.rint(weight / scale[:, None]))


def test_rounding_refuses_matrices_that_do_not_fit():
    with pytest.raises(ValueError, match="does not fit gram"):
        gptq(np.ones((2, 3)), np.ones((2, 2)), np.ones((2, 1)), -127, 127)
    with pytest.raises(ValueError, match="bounds do not fit"):
        gptq(np.ones((2, 3)), np.ones((3, 3)), np.ones((4, 1)), -127, 127)


def test_rounding_is_what_its_paper_says_an_input_at_a_time():
    """Frantar et al. 2023, algorithm 1, by the inverse of H: longer, and the same codes."""
    random = np.random.default_rng(5)
    weight, seen = random.standard_normal((12, 200)), correlated(900, 200, 1).astype(np.float64)
    gram, step = seen.T @ seen, np.abs(weight).max(axis=1, keepdims=True) / 7
    order = np.argsort(-np.diagonal(gram), kind="stable")
    work, damped = weight[:, order].copy(), gram[np.ix_(order, order)].copy()
    damped[np.diag_indices(200)] += 0.01 * np.diagonal(gram).mean()
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    codes = np.empty_like(work)
    for j in range(200):
        codes[:, j] = np.clip(np.rint(work[:, j] / step[:, 0]), -7, 7)
        work[:, j + 1 :] -= np.outer((work[:, j] - codes[:, j] * step[:, 0]) / upper[j, j], upper[j, j + 1 :])
    got = gptq(weight, gram, step, -7, 7)
    assert (got[:, order] == codes).mean() > 0.999


@pytest.mark.parametrize("params", [{"bits": 4}, {"bits": 4, "symmetric": False}, {"bits": 8}], ids=str)
def test_weights_alone_rounded_by_their_inputs_lose_less(params, tmp_path):
    model, held_out = deep_gemm(inputs=250), correlated(256, 256, 2)[:, :250]  # no whole number of blocks
    samples = {"x": correlated(1024, 256, 1)[:, :250].copy()}
    expected, kept = outputs_of(model, {"x": held_out}, tmp_path)["y"], []
    for rounding in ("nearest", "gptq"):
        after = run_passes(model, [PassSpec("weight-only", {"rounding": rounding, **params})], samples)
        kept.append(sqnr(expected, outputs_of(after, {"x": held_out}, tmp_path)["y"]))
    # In 8 bits what the kernel makes of the activations is most of the error.
    assert kept[1] > kept[0] + (2 if params["bits"] == 4 else -0.1)


def test_weights_alone_are_rounded_by_inputs_only_where_that_can_be():
    for params, why in (({"runtime": "openvino"}, "for onnxruntime"), ({"rounding": "best"}, "no rounding 'best'")):
        with pytest.raises(PassFailed, match=why):
            run_passes(deep_gemm(), [PassSpec("weight-only", {"rounding": "gptq", **params})], {"x": np.ones((4, 256))})
    with pytest.raises(PassFailed, match="needs calibration samples"):
        run_passes(deep_gemm(), [PassSpec("weight-only", {"rounding": "gptq"})])


def test_gptq_weights_reach_the_runtime_as_they_were_rounded(tmp_path):
    model, x = deep_gemm(), correlated(512, 256, 1)
    errors = []
    expected = outputs_of(model, {"x": correlated(256, 256, 2)}, tmp_path)["y"]
    for rounding in ("nearest", "gptq"):
        spec = PassSpec("int8-static", {"rounding": rounding, "regions": False})
        got = outputs_of(run_passes(model, [spec], {"x": x}), {"x": correlated(256, 256, 2)}, tmp_path)["y"]
        errors.append(sqnr(expected, got))
    assert errors[1] > errors[0] + 1

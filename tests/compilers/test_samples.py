import numpy as np
import pytest

from compilers import samples, synthetic
from model_store.entities import Signature, TensorSpec
from tests import zoo


def signature(*inputs):
    return Signature(inputs=tuple(TensorSpec(*spec) for spec in inputs), outputs=(TensorSpec("y", "FP32", (-1, 2)),))


@pytest.mark.parametrize("count", [0, 1, 3, 10, 999, 1000, 1001, 50_000])
def test_the_split_is_disjoint_complete_and_bounded(count):
    drawn = samples.split(count)
    assert sorted([*drawn.calibration, *drawn.validation]) == list(range(count))
    assert len(drawn.calibration) <= min(300, 0.3 * count)


def test_the_split_is_the_same_every_time():
    np.testing.assert_array_equal(samples.split(500).validation, samples.split(500).validation)


def test_rows_of_a_dynamic_batch_are_taken_together(tmp_path):
    stored = zoo.npz(tmp_path / "s.npz", x=np.arange(12.0).reshape(6, 2), labels=np.arange(6))
    loaded = samples.Samples.load(stored, signature(("x", "FP32", (-1, 2))))
    assert loaded.count == 6
    taken = loaded.take([4, 1])["x"]
    assert taken.dtype == np.float32
    assert taken.tolist() == [[8, 9], [2, 3]]
    assert loaded.labels_at([4, 1])[""].tolist() == [4, 1]


def test_a_fixed_batch_is_one_sample(tmp_path):
    fixed = signature(("x", "FP32", (2, 4)))
    flat = samples.Samples.load(zoo.npz(tmp_path / "a.npz", x=np.arange(24).reshape(6, 4)), fixed)
    stacked = samples.Samples.load(zoo.npz(tmp_path / "b.npz", x=np.arange(24).reshape(3, 2, 4)), fixed)
    assert flat.count == stacked.count == 3
    np.testing.assert_array_equal(flat.take([2])["x"], stacked.take([2])["x"])
    with pytest.raises(ValueError, match="one sample at a time"):
        flat.take([0, 1])


def test_texts_become_bytes(tmp_path):
    loaded = samples.Samples.load(zoo.npz(tmp_path / "s.npz", t=np.array(["ü", "b"])), signature(("t", "BYTES", (-1,))))
    assert loaded.take([0])["t"].tolist() == ["ü".encode()]


def test_expected_outputs_are_no_labels(tmp_path):
    stored = zoo.npz(tmp_path / "s.npz", x=np.zeros((2, 2)), labels=np.zeros((2, 2), np.float32))
    assert samples.Samples.load(stored, signature(("x", "FP32", (-1, 2)))).labels == {}


def test_chunks_meet_every_batch_size_and_leave_nothing_out():
    cut = list(samples.chunks(np.arange(100), (1, 8, 32)))
    assert [len(chunk) for chunk in cut] == [1, 8, 32, 1, 8, 32, 1, 8, 9]
    np.testing.assert_array_equal(np.concatenate(cut), np.arange(100))


def test_synthetic_inputs_fit_the_signature_and_repeat():
    wanted = signature(
        ("ids", "INT64", (-1, -1)), ("attention_mask", "INT64", (-1, -1)), ("token_type_ids", "INT64", (-1, -1)),
        ("image", "FP32", (-1, 3, -1, -1)), ("text", "BYTES", (-1,)), ("flag", "BOOL", (2,)), ("half", "FP16", ()),
    )  # fmt: skip
    for guess in synthetic.LADDER:
        made = synthetic.inputs(wanted, 3, guess, seed=1)
        assert made["ids"].shape == (3, guess.length)
        assert made["ids"].min() >= 0
        assert made["ids"].max() < max(guess.below, 1)
        assert made["attention_mask"].all()
        assert not made["token_type_ids"].any()
        assert made["image"].shape == (3, 3, guess.length, guess.length)
        assert made["text"].dtype == object
        assert made["half"].shape == ()
        again = synthetic.inputs(wanted, 3, guess, seed=1)
        assert all(np.array_equal(made[name], again[name]) for name in made)

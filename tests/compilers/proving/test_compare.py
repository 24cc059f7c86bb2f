import numpy as np
import pytest

from compilers.intervals import wilson
from compilers.proving.compare import CAP_DB, Comparison, Mismatch


def compare(reference, variant, labels=None, name="y", rowwise=True):
    comparison = Comparison(rowwise=rowwise)
    count = len(reference) if rowwise else 1
    comparison.add({name: reference}, {name: variant}, range(count), {"": labels} if labels is not None else None)
    return comparison.agreement()


def rows(count=200, width=16, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def test_equal_outputs_have_the_cap_and_cosine_one():
    figures = compare(rows(), rows())
    assert (figures.sqnr_db, figures.sqnr_p5_db) == (CAP_DB, CAP_DB)
    assert figures.cosine == pytest.approx(1)
    assert figures.outputs["y"].max_abs_error == 0


def test_noise_of_a_known_power_gives_its_ratio():
    reference = rows(500, 64)
    noise = rows(500, 64, seed=1)
    noise *= np.linalg.norm(reference, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True) / 10
    figures = compare(reference, reference + noise)
    assert figures.sqnr_db == pytest.approx(20, abs=1e-3)
    assert figures.sqnr_p5_db == pytest.approx(20, abs=1e-3)
    assert 0.99 < figures.cosine < 0.9975


def test_the_worst_sample_is_named_by_its_index_in_the_file():
    reference = rows(4)
    variant = reference.copy()
    variant[2] += 1
    comparison = Comparison(rowwise=True)
    comparison.add({"y": reference}, {"y": variant}, [7, 30, 11, 2])
    assert comparison.agreement().worst_sample == 11


def test_chunks_sum_up_to_the_whole():
    reference, variant = rows(), rows() + 0.01 * rows(seed=3)
    chunked = Comparison(rowwise=True)
    for at in range(0, 200, 33):
        part = slice(at, at + 33)
        chunked.add({"y": reference[part]}, {"y": variant[part]}, range(200)[part])
    assert chunked.agreement() == compare(reference, variant)


def test_one_bad_output_is_not_hidden_by_a_good_one():
    comparison = Comparison(rowwise=True)
    good, bad = rows(seed=1), rows(seed=2)
    comparison.add({"good": good, "bad": bad}, {"good": good, "bad": bad + rows(seed=3)}, range(200))
    figures = comparison.agreement()
    assert figures.sqnr_db == figures.outputs["bad"].sqnr_db < 5
    assert figures.outputs["good"].sqnr_db == CAP_DB


def test_logits_are_classes_and_embeddings_are_not():
    embedding = rows() / np.linalg.norm(rows(), axis=1, keepdims=True)
    assert compare(embedding, embedding, name="embedding").top1 is None
    assert compare(np.abs(embedding), np.abs(embedding), name="embedding").top1 is None
    assert compare(embedding, embedding, name="logits").top1 == 1
    assert compare(embedding, embedding, name="class_scores").top1 == 1
    softmax = np.exp(rows()) / np.exp(rows()).sum(axis=1, keepdims=True)
    assert compare(softmax, softmax, name="out").top1 == 1
    assert compare(embedding, embedding, labels=np.zeros(200, np.int64), name="out").top1 == 1


def test_top1_counts_changed_winners_with_wilsons_bound():
    reference = rows()
    variant = reference.copy()
    variant[:6, 0], variant[:6, 1] = 50, 60
    reference[:6, 0], reference[:6, 1] = 60, 50
    figures = compare(reference, variant, name="logits")
    assert figures.top1 == pytest.approx(194 / 200)
    assert figures.top1_lower == pytest.approx(wilson(194, 200)[0])


def test_labels_give_the_accuracy_of_both_and_the_drop():
    reference = np.eye(10, dtype=np.float32)[np.arange(200) % 10]
    variant = reference.copy()
    variant[:4] = np.roll(variant[:4], 1, axis=1)
    figures = compare(reference, variant, labels=np.arange(200) % 10)
    assert figures.reference_label_accuracy == 1
    assert figures.label_accuracy == pytest.approx(0.98)
    assert 0.02 < figures.label_drop_upper < 0.05


def test_labels_beyond_the_classes_are_not_counted():
    assert compare(rows(), rows(), labels=np.arange(200)).label_accuracy is None


@pytest.mark.parametrize(
    "discrete", [np.arange(100), np.arange(100) % 2 == 0, np.array([b"%d" % i for i in range(100)], object)]
)
def test_discrete_outputs_compare_by_the_share_that_is_equal(discrete):
    variant = discrete.copy()
    variant[:3] = discrete[1:4]
    figures = compare(discrete, variant, name="label")
    assert figures.cosine == figures.cosine_p1 == figures.top1 == pytest.approx(0.97)
    assert figures.sqnr_db == pytest.approx(-10 * np.log10(0.03))


def test_a_scalar_output_is_one_sample():
    figures = compare(np.float32(2.0), np.float32(2.0), rowwise=False)
    assert (figures.samples, figures.sqnr_db) == (1, CAP_DB)


def test_silence_is_equal_to_silence_only():
    silent = np.zeros((3, 4), np.float32)
    assert compare(silent, silent).cosine_p1 == 1
    figures = compare(silent, rows(3, 4))
    assert (figures.sqnr_db, figures.cosine) == (-CAP_DB, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda y: np.where(y > 2, np.nan, y), "NaN where the reference is finite"),
        (lambda y: np.where(y > 2, np.inf, y), "infinity where"),
        (lambda y: y[:, :3], r"shape \[200, 3\]"),
        (lambda y: y.astype(np.float64), "is FP64, the reference's is FP32"),
    ],
)
def test_outputs_of_another_kind_are_refused(change, says):
    with pytest.raises(Mismatch, match=says):
        compare(rows(), change(rows()))


def test_a_missing_output_is_refused():
    with pytest.raises(Mismatch, match="lacks the output y"):
        Comparison(rowwise=True).add({"y": rows()}, {}, range(200))


def test_infinities_of_the_reference_are_kept_not_refused():
    masked = np.where(rows() > 1, -np.inf, rows()).astype(np.float32)
    assert compare(masked, masked).sqnr_db == CAP_DB
    with pytest.raises(Mismatch, match="same places"):
        compare(masked, np.nan_to_num(masked))

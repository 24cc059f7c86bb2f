import pytest

from compilers.intervals import wilson
from compilers.proving import gate
from compilers.proving.gate import Finding
from model_store.entities import Agreement
from model_store.policy import Gate


def agreement(samples=700, sqnr=40.0, cosine=0.9999, top1=None, **labels):
    lower = None if top1 is None else wilson(top1 * samples, samples)[0]
    return Agreement(samples, sqnr, sqnr - 3, cosine, cosine, 17, {}, top1=top1, top1_lower=lower, **labels)


def judge(figures, precision="int8", policy=None, lossless=False):
    return gate.judge(figures, gate.bounds_for(precision, policy or Gate(), lossless=lossless))


@pytest.mark.parametrize(
    ("precision", "sqnr", "cosine", "top1", "finding"),
    [
        ("int8", 25, 0.99, None, Finding.PASSED),
        ("int8", 19, 0.99, None, Finding.FAILED),
        ("int8", 25, 0.98, None, Finding.FAILED),
        ("int8", 25, 0.99, 0.997, Finding.PASSED),
        ("int8", 25, 0.99, 0.95, Finding.FAILED),
        ("bf16", 25, 0.9999, None, Finding.FAILED),
        ("fp16", 35, 0.99995, None, Finding.FAILED),
        ("fp16", 45, 0.99995, 0.999, Finding.PASSED),
        ("bf16", 35, 0.9995, 0.999, Finding.PASSED),
        ("f32", 50, 1.0, None, Finding.FAILED),
        ("f32", 90, 1.0, 1.0, Finding.PASSED),
        ("f32", 90, 0.9999, None, Finding.FAILED),
    ],
)
def test_the_defaults_of_each_precision(precision, sqnr, cosine, top1, finding):
    judged = judge(agreement(sqnr=sqnr, cosine=cosine, top1=top1), precision, lossless=precision == "f32")
    assert judged.finding is finding
    assert judged.reason


def test_the_words_hold_the_figures():
    assert judge(agreement(cosine=0.99964, top1=698 / 700)).reason == (
        "cosine 0.9996, 40 dB, top-1 agreement 99.7 % (at least 98.9 %) on 700 samples"
    )


def test_a_gate_in_the_policy_replaces_the_defaults_as_a_whole():
    only_cosine = Gate(cosine=0.9)
    assert judge(agreement(sqnr=1, cosine=0.95, top1=0.5), policy=only_cosine).finding is Finding.PASSED
    assert judge(agreement(sqnr=90, cosine=0.85, top1=1.0), policy=only_cosine).finding is Finding.FAILED
    assert judge(agreement(sqnr=50), "f32", Gate(sqnr_db=40), lossless=True).finding is Finding.PASSED


def test_too_few_samples_for_a_perfect_score_are_inconclusive_and_say_how_many_it_takes():
    judged = judge(agreement(samples=100, top1=1.0))
    assert judged.finding is Finding.INCONCLUSIVE
    assert "189 validation samples would settle it" in judged.reason


def test_an_interval_that_straddles_the_bound_is_inconclusive():
    judged = judge(agreement(samples=400, top1=0.985))
    assert judged.finding is Finding.INCONCLUSIVE
    assert "at this rate" in judged.reason


def test_a_bad_figure_beats_an_open_one():
    assert judge(agreement(samples=100, sqnr=5, top1=1.0)).finding is Finding.FAILED


def test_a_handful_of_samples_proves_nothing_lossy():
    assert judge(agreement(samples=19)).finding is Finding.INCONCLUSIVE
    assert judge(agreement(samples=20)).finding is Finding.PASSED
    assert judge(agreement(samples=1, sqnr=120, cosine=1.0), "f32", lossless=True).finding is Finding.PASSED


@pytest.mark.parametrize(
    ("reference", "variant", "upper", "finding"),
    [
        (0.99, 0.985, 0.02, Finding.PASSED),  # the point estimate decides
        (0.99, 0.93, 0.08, Finding.FAILED),
        (0.99, 0.975, 0.03, Finding.INCONCLUSIVE),
    ],
)
def test_labels_bound_the_drop_of_accuracy(reference, variant, upper, finding):
    figures = agreement(
        top1=0.999, reference_label_accuracy=reference, label_accuracy=variant, label_drop_upper=upper
    )  # fmt: skip
    judged = judge(figures)
    assert judged.finding is finding
    if finding is not Finding.PASSED:
        assert "accuracy falls by" in judged.reason


def test_a_gate_on_what_cannot_be_measured_is_inconclusive():
    assert "no integer labels" in judge(agreement(), policy=Gate(max_drop=0.01)).reason
    assert "no output names classes" in judge(agreement(), policy=Gate(top1=0.9)).reason


def test_percentages_are_never_rounded_up():
    assert gate.percent(0.98999) == "98.9 %"
    assert gate.percent(0.99) == "99.0 %"
    assert gate.ratio(0.9999999) != "1.0000"


@pytest.mark.parametrize(
    ("ends", "bound", "finding"),
    [
        ((0.93, 0.97), {"least": 0.9}, Finding.PASSED),
        ((0.93, 0.97), {"least": 0.98}, Finding.FAILED),
        ((0.93, 0.97), {"least": 0.94}, Finding.INCONCLUSIVE),
        ((0.93, 0.97), {"most": 0.98}, Finding.PASSED),
        ((0.93, 0.97), {"most": 0.9}, Finding.FAILED),
        ((0.93, 0.97), {"most": 0.96}, Finding.INCONCLUSIVE),
    ],
)
def test_the_owners_metric_is_judged_by_its_interval(ends, bound, finding):
    policy = Gate(metric={"expression": "mean(out['y'])", **bound})
    figures = agreement(metric=0.95, metric_lower=ends[0], metric_upper=ends[1])
    judged = judge(figures, policy=policy)
    assert judged.finding is finding
    if finding is Finding.INCONCLUSIVE:
        assert "about 2800 validation samples would settle it" in judged.reason  # a quarter of the way: 4 times as many
    else:
        assert "metric" in judged.reason
    assert judge(agreement(sqnr=1, cosine=0.1), policy=policy).finding is Finding.INCONCLUSIVE

"""Accuracy control: what is clear early is decided early, what is not goes on, and false alarms are rare."""

from __future__ import annotations

import numpy as np
import pytest

from compilers.proving import accuracy
from compilers.proving.accuracy import LOOKS, clear, next_look
from compilers.proving.compare import Comparison
from compilers.proving.gate import Bounds, Finding, judge
from model_store.expression import Expression

RANDOM = np.random.default_rng(0)


def compared(noise=0.0, wrong=0.0, samples=64, metric=None, labels=None, seed=1):
    """A classifier of 10 classes against itself with noise, and with some samples answered wrongly."""
    random = np.random.default_rng(seed)
    reference = random.standard_normal((samples, 10)).astype(np.float32)
    variant = reference + noise * random.standard_normal(reference.shape).astype(np.float32)
    flipped = random.random(samples) < wrong
    variant[flipped] = np.roll(variant[flipped], 1, axis=1)
    comparison = Comparison(rowwise=True, metric=metric and Expression(metric))
    comparison.add({"logits": reference}, {"logits": variant}, range(samples), labels and {"": labels(reference)})
    return comparison


@pytest.mark.parametrize(
    ("noise", "wrong", "bounds", "finding"),
    [
        (0.001, 0, Bounds(sqnr_db=20, cosine=0.985), Finding.PASSED),
        (0.5, 0, Bounds(sqnr_db=20, cosine=0.985), Finding.FAILED),
        (0.1, 0, Bounds(sqnr_db=20), None),
        (0.001, 0.5, Bounds(top1=0.98), Finding.FAILED),
        (0.001, 0, Bounds(top1=0.98), None),
        (0.001, 0, Bounds(top1=0.8), Finding.PASSED),
        (0.5, 0, Bounds(sqnr_db=5, cosine=0.985), Finding.FAILED),
    ],
)
def test_clear_cases_are_told_from_sixty_four_samples(noise, wrong, bounds, finding):
    assert clear(compared(noise, wrong), bounds) is finding


def test_a_fall_of_accuracy_by_the_labels_is_told_early():
    def right(reference):
        return reference.argmax(axis=1)

    assert clear(compared(wrong=0.4, labels=right), Bounds(max_drop=0.01, given=True)) is Finding.FAILED
    assert clear(compared(wrong=0.4), Bounds(max_drop=0.01, given=True)) is None, "without labels nothing is clear"


def test_the_owners_metric_is_told_early():
    bounds = Bounds(given=True, metric_least=0.9)
    metric = "argmax(ref['logits']) == argmax(out['logits'])"
    assert clear(compared(wrong=0.5, metric=metric), bounds) is Finding.FAILED
    assert clear(compared(samples=256, metric=metric), bounds) is Finding.PASSED
    assert clear(compared(wrong=0.1, samples=256, metric=metric), bounds) is None
    distance = "max(abs(ref['logits'] - out['logits']))"
    assert clear(compared(noise=0.01, metric=distance), Bounds(given=True, metric_most=0.2)) is Finding.PASSED
    assert clear(compared(noise=0.3, metric=distance), Bounds(given=True, metric_most=0.2)) is Finding.FAILED


def test_what_fails_early_fails_at_the_gate_too():
    for noise, bounds in [(0.5, Bounds(sqnr_db=20)), (0.5, Bounds(cosine=0.985)), (0.6, Bounds(top1=0.98))]:
        comparison = compared(noise)
        assert clear(comparison, bounds) is Finding.FAILED
        assert judge(comparison.agreement(), bounds).finding is Finding.FAILED


def test_a_variant_at_the_bound_is_seldom_decided_early():
    """Its true agreement is the bound: whatever an early look says is wrong half the time, so it must say nothing."""
    metric = "argmax(ref['logits']) == argmax(out['logits'])"
    bounds = Bounds(given=True, metric_least=0.9)
    said = [clear(compared(wrong=0.1, samples=256, metric=metric, seed=seed), bounds) for seed in range(200)]
    assert sum(finding is not None for finding in said) <= 4


def test_looks_grow():
    assert [next_look(samples) for samples in (0, 63, 64, 255, 256, 1000)] == [64, 64, 256, 256, None, None]
    assert tuple(sorted(LOOKS)) == LOOKS
    assert accuracy.EARLY_Z > 3

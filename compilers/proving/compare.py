"""Agreement of a variant with the reference: how far apart their outputs are, sample by sample.

Outputs come in chunks (a model may answer with megabytes a sample) and only a few numbers a sample are kept.

Continuous outputs: signal-to-noise ratio 10 log10(sum r^2 / sum (r-v)^2) and cosine, each per sample. Discrete ones
(integers, booleans, texts): the share that is equal, written into the same fields (cosine = share, noise = what
differs). Classifier-like outputs also: is the largest entry the same one?

What can never be right is no figure but a `Mismatch`: other shapes, other datatypes, values that are not finite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compilers import intervals
from model_store.datatypes import v2_name
from model_store.entities import Agreement, OutputAgreement
from model_store.expression import Expression

CAP_DB = 200.0
"""Stands for equality, since JSON has no infinity; its negative for a signal lost altogether."""

_CLASSIFIER_WORDS = frozenset(
    (
        "logit",
        "logits",
        "prob",
        "probs",
        "probability",
        "probabilities",
        "score",
        "scores",
        "softmax",
        "class",
        "classes",
    )
)

Tensors = Mapping[str, np.ndarray]


class Mismatch(ValueError):
    """The variant's outputs are not of the kind the reference's are: no tolerance makes them right."""


class Comparison:
    """Collects chunks of outputs; `agreement` sums up. `rowwise`: the first axis of every output counts samples.

    `metric`: the owner's own figure, taken of every sample.
    """

    def __init__(self, *, rowwise: bool, metric: Expression | None = None) -> None:
        self._rowwise = rowwise
        self._metric = metric
        self._metrics: list[float] = []
        self._tallies: dict[str, _Tally] = {}
        self._samples: list[int] = []

    def add(self, reference: Tensors, variant: Tensors, samples: Sequence[int], labels: Tensors | None = None) -> None:
        """Compare one run of each. `samples` are the indices of its rows. Raises Mismatch, InvalidExpression."""
        if missing := reference.keys() - variant.keys():
            raise Mismatch(f"the variant lacks the output {', '.join(sorted(missing))}")
        for name, expected in reference.items():
            got = np.asarray(variant[name])
            _refuse_other_kinds(name, expected, got)
            rows = (len(samples), -1) if self._rowwise and expected.ndim else (1, -1)
            flat = tuple(a.reshape(rows if a.size else (rows[0], 0)) for a in (expected, got))
            tally = self._tallies.setdefault(name, _Tally(name, len(expected.shape[1 if self._rowwise else 0 :])))
            tally.add(flat[0], flat[1], labels or {})
        if self._metric is not None:
            for row in range(len(samples)):
                ref, out = (_row(tensors, row, self._rowwise) for tensors in (reference, variant))
                self._metrics.append(self._metric.evaluate(ref, out, _row(labels or {}, row, True)))
        self._samples.extend(samples)

    def per_sample(self) -> PerSample:
        """What was kept of every sample so far, of the output that is worst for it."""
        tallies = list(self._tallies.values())
        classifiers = [np.array(tally.same_top) for tally in tallies if tally.classifier_like]
        labelled = _labelled(tallies)
        return PerSample(
            sqnr=np.min([tally.sqnr for tally in tallies], axis=0),
            cosine=np.min([tally.cosine for tally in tallies], axis=0),
            continuous=not any(tally.discrete for tally in tallies),
            same_top=min(classifiers, key=lambda same: float(same.mean()), default=None),
            drop=None if labelled is None else np.subtract(*(np.array(each, np.float64) for each in labelled)),
            metric=np.array(self._metrics) if self._metric is not None else None,
        )

    def agreement(self) -> Agreement:
        """Figures over everything added. Raises ValueError when nothing was."""
        if not self._samples:
            raise ValueError("no samples were compared")
        tallies = list(self._tallies.values())
        outputs = {tally.name: tally.agreement() for tally in tallies}
        worst = min(tallies, key=lambda tally: tally.lowest_db)
        classifiers = [tally for tally in tallies if tally.classifier_like]
        top1 = min((float(np.mean(tally.same_top)) for tally in classifiers), default=None)
        return Agreement(
            samples=len(self._samples),
            sqnr_db=min(figures.sqnr_db for figures in outputs.values()),
            sqnr_p5_db=min(figures.sqnr_p5_db for figures in outputs.values()),
            cosine=min(figures.cosine for figures in outputs.values()),
            cosine_p1=min(figures.cosine_p1 for figures in outputs.values()),
            worst_sample=self._samples[int(np.argmin(worst.sqnr))],
            outputs=outputs,
            top1=top1,
            top1_lower=None if top1 is None else intervals.wilson(top1 * len(self._samples), len(self._samples))[0],
            **_label_figures(tallies),
            **self._metric_figures(),
        )

    def _metric_figures(self) -> dict[str, float]:
        if not self._metrics:
            return {}
        mean, lower, upper = intervals.mean(np.array(self._metrics))
        return {"metric": mean, "metric_lower": lower, "metric_upper": upper}


@dataclass(frozen=True, slots=True)
class PerSample:
    """Figures sample by sample, shape (samples,) each. `drop`: reference right minus variant right, of -1, 0, 1.

    `continuous`: no output is discrete (there, one sample's figure means little). None: not there.
    """

    sqnr: np.ndarray
    cosine: np.ndarray
    continuous: bool
    same_top: np.ndarray | None
    drop: np.ndarray | None
    metric: np.ndarray | None


@dataclass
class _Tally:
    """What is kept of one output: a few numbers a sample. `rank` is that of one sample of it."""

    name: str
    rank: int
    sqnr: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    same_top: list[bool] = field(default_factory=list)
    max_abs_error: float = 0.0
    discrete: bool = False
    width: int = 0
    like_softmax: bool = True
    correct: list[bool] = field(default_factory=list)
    reference_correct: list[bool] = field(default_factory=list)

    def add(self, expected: np.ndarray, got: np.ndarray, labels: Tensors) -> None:
        self.discrete = expected.dtype.kind not in "fV" and expected.dtype.name != "bfloat16"
        self.width = expected.shape[1]
        (self._add_discrete if self.discrete else self._add_continuous)(expected, got)
        if self.names_classes and self.width:
            tops = (expected[:, 0], got[:, 0]) if self.discrete else (expected.argmax(axis=1), got.argmax(axis=1))
            self.same_top.extend((tops[0] == tops[1]).tolist())
            wanted = labels.get(self.name, labels.get(""))
            if wanted is not None and len(wanted) == len(expected) and (self.discrete or wanted.max() < self.width):
                self.reference_correct.extend((tops[0] == wanted).tolist())
                self.correct.extend((tops[1] == wanted).tolist())

    @property
    def names_classes(self) -> bool:
        """A sample of it can be read as one class: an integer of its own, or a vector with an entry a class."""
        return self.width == 1 if self.discrete else self.rank == 1 and self.width > 1

    @property
    def classifier_like(self) -> bool:
        """An embedding also is a vector: so labels, rows that sum to one, or a telling name must say it is classes."""
        words = set(re.split(r"[^a-z]+", self.name.lower()))
        told = bool(self.correct) or self.like_softmax or bool(words & _CLASSIFIER_WORDS) or self.discrete
        return self.names_classes and bool(self.same_top) and told

    @property
    def lowest_db(self) -> float:
        return min(self.sqnr)

    def agreement(self) -> OutputAgreement:
        if self.discrete and self.width == 1:
            # One value a sample is equal or not: only the share over the samples says something.
            share = float(np.mean(self.cosine))
            return OutputAgreement(_share_db(share), _share_db(share), share, share, self.max_abs_error)
        return OutputAgreement(
            sqnr_db=float(np.mean(self.sqnr)),
            sqnr_p5_db=float(np.percentile(self.sqnr, 5)),
            cosine=float(np.mean(self.cosine)),
            cosine_p1=float(np.percentile(self.cosine, 1)),
            max_abs_error=self.max_abs_error,
        )

    def _add_continuous(self, expected: np.ndarray, got: np.ndarray) -> None:
        reference, variant = expected.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(reference)
        reference, variant = np.where(finite, reference, 0.0), np.where(finite, variant, 0.0)
        difference = reference - variant
        signal, noise, power = (np.einsum("ij,ij->i", a, a) for a in (reference, difference, variant))
        self.sqnr.extend(_decibels(signal, noise).tolist())
        product, norms = np.einsum("ij,ij->i", reference, variant), np.sqrt(signal) * np.sqrt(power)
        both_zero = (signal == 0) & (power == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine = np.where(norms > 0, np.clip(product / norms, -1.0, 1.0), both_zero.astype(np.float64))
        self.cosine.extend(cosine.tolist())
        self.max_abs_error = max(self.max_abs_error, float(np.abs(difference).max(initial=0.0)))
        sums = reference.sum(axis=1)
        self.like_softmax &= bool((reference >= 0).all() and (np.abs(sums - 1) < 1e-3).all())

    def _add_discrete(self, expected: np.ndarray, got: np.ndarray) -> None:
        equal = np.asarray(expected == got, dtype=bool)
        shares = equal.mean(axis=1) if self.width else np.ones(len(expected))
        self.cosine.extend(shares.tolist())
        self.sqnr.extend(_share_db(share) for share in shares.tolist())
        if expected.dtype.kind in "iub":
            error = np.abs(expected.astype(np.float64) - got.astype(np.float64)).max(initial=0.0)
        else:
            error = float(not equal.all())
        self.max_abs_error = max(self.max_abs_error, float(error))


def _refuse_other_kinds(name: str, expected: np.ndarray, got: np.ndarray) -> None:
    if v2_name(expected.dtype) != v2_name(got.dtype):
        raise Mismatch(f"output {name!r} is {v2_name(got.dtype)}, the reference's is {v2_name(expected.dtype)}")
    if expected.shape != got.shape:
        raise Mismatch(f"output {name!r} has shape {list(got.shape)}, the reference's has {list(expected.shape)}")
    if expected.dtype.kind not in "fV" and expected.dtype.name != "bfloat16":
        return
    reference, variant = expected.astype(np.float64), got.astype(np.float64)
    odd, odd_here = ~np.isfinite(reference), ~np.isfinite(variant)
    if (fresh := odd_here & ~odd).any():
        kind = "NaN" if np.isnan(variant[fresh]).any() else "infinity"
        raise Mismatch(f"output {name!r} holds {kind} where the reference is finite ({int(fresh.sum())} values)")
    if not np.array_equal(reference[odd], variant[odd], equal_nan=True):
        raise Mismatch(f"output {name!r} does not hold the reference's NaN or infinity in the same places")


def _decibels(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * (np.log10(signal) - np.log10(noise))
    return np.where(noise == 0, CAP_DB, np.clip(np.nan_to_num(ratio, nan=-CAP_DB), -CAP_DB, CAP_DB))


def _share_db(share: float) -> float:
    return CAP_DB if share >= 1 else float(-10 * np.log10(1 - share))


def _label_figures(tallies: Sequence[_Tally]) -> dict[str, float]:
    """Accuracy by the labels, of the output that has them; of several, the one whose accuracy fell most."""
    labelled = _labelled(tallies)
    if labelled is None:
        return {}
    reference, variant = labelled
    return {
        "label_accuracy": float(variant.mean()),
        "reference_label_accuracy": float(reference.mean()),
        "label_drop_upper": intervals.paired_drop(reference, variant)[1],
    }


def _labelled(tallies: Sequence[_Tally]) -> tuple[np.ndarray, np.ndarray] | None:
    """(reference right, variant right) per sample, of the output with labels whose accuracy fell most."""
    labelled = [tally for tally in tallies if tally.correct and tally.classifier_like]
    if not labelled:
        return None
    worst = max(labelled, key=lambda tally: float(np.mean(tally.reference_correct)) - float(np.mean(tally.correct)))
    return np.array(worst.reference_correct), np.array(worst.correct)


def _row(tensors: Tensors, row: int, rowwise: bool) -> Tensors:
    return {name: array[row] if rowwise else array for name, array in tensors.items()}

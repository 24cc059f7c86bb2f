"""The counts as metrics read them: of every process, added up for each set of labels."""

from __future__ import annotations

from collections import Counter as Tally

from gateway import series
from gateway.counts import STAGES, Counts
from gateway.statistics import Failure, Statistics

MAX_MODELS = 500
"""Models beyond this many share the label `other`: a scrape must stay bounded."""

Labels = tuple[str, str, str, str]
"""Model, version, variant, target."""


class Series:
    """What is read for one set of labels: the counts of one variant, or of all that share the label `other`."""

    def __init__(self) -> None:
        self.request, self.queue, self.infer, self.decode, self.encode = (series.seconds() for _ in STAGES)
        self.batch = series.rows()
        self.executions = self.rows = self.input_ns = self.output_ns = 0
        self.why: Tally[str] = Tally()

    def add(self, counts: Counts) -> None:
        for stage in STAGES:
            getattr(self, stage).merge(getattr(counts, stage))
        for rows, (times, *_) in counts.batches.items():
            self.batch.add(rows, times)
        self.executions += counts.executions
        self.rows += counts.rows
        self.input_ns += counts.input_ns
        self.output_ns += counts.output_ns
        self.why.update({why: times[0] for why, times in counts.why.items()})


class Readings:
    """Of `statistics`, with a bounded number of models."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._models: set[str] = set()

    def bounded(self, model: str) -> str:
        """What a model is called in labels."""
        if model not in self._models:
            if len(self._models) >= MAX_MODELS:
                return "other"
            self._models.add(model)
        return model

    def series(self) -> dict[Labels, Series]:
        found: dict[Labels, Series] = {}
        for one in self._statistics.everyones():
            for key, counts in one.by_variant.items():
                if counts.successes or counts.batches:
                    found.setdefault((self.bounded(key.model), *key[1:]), Series()).add(counts)
        return found

    def failures(self) -> Tally[Failure]:
        found: Tally[Failure] = Tally()
        for one in self._statistics.everyones():
            for failure, (count, _) in one.failures.items():
                found[failure._replace(model=self.bounded(failure.model))] += count
        return found

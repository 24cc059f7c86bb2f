"""What was answered, refused and run: every fact is counted here, once, and nowhere else.

The V2 statistics (PROTOCOL section 7) and the metrics (metrics.py) are two readings of these counts, so they cannot
disagree. Facts of a request (time in the queue, in the runtime, ...) are counted when its answer is encoded; facts of
a batch (that it ran, with how many rows) when it comes back from its runner, whoever still waits for it. Counts belong
to the version, not to a runner: they live until the version is deleted.

Time in the queue ends when the runner turns to the batch, not when it gets it: it gets one ahead.
A stage is the same stretch of time for a request and for its batch, so they add up: queue + compute_input +
compute_infer + compute_output <= success, and the rest is reading, decoding and encoding the body.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway import series
from gateway.errors import BadRequest
from gateway.health import Subject

if TYPE_CHECKING:
    from gateway.router import ModelRoutes, RouteTable

_EXACT_SIZES = 512
"""Different batch sizes counted one by one; further ones count as the next power of two, so nobody can grow this."""


class Key(NamedTuple):
    """Whose counts: a variant of a version, on a target."""

    model: str
    version: str
    variant: str
    target: str


class Failure(NamedTuple):
    """Requests that failed alike. `version`: empty when the request named none that exists."""

    model: str
    version: str
    code: int
    reason: str


class Counts:
    """What one variant did. Durations in nanoseconds."""

    __slots__ = (
        "batches", "decode", "encode", "infer", "input_ns", "last_ms", "output_ns", "queue", "request", "rows", "why",
    )  # fmt: skip

    def __init__(self) -> None:
        self.request, self.queue, self.infer = series.seconds(), series.seconds(), series.seconds()
        self.decode, self.encode = series.seconds(), series.seconds()
        self.rows = self.input_ns = self.output_ns = self.last_ms = 0
        self.batches: dict[int, list[int]] = {}
        """Rows of a batch -> how many ran, and their nanoseconds of input, inference, output."""
        self.why: dict[str, int] = {}

    def ran(self, rows: int, why: str, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """A batch of `rows` rows came back. `why`: the router's choice (ranking.Choice)."""
        batch = self.batches.get(rows)
        if batch is None:
            if len(self.batches) >= _EXACT_SIZES:
                rows = 1 << (rows - 1).bit_length()
            batch = self.batches.setdefault(rows, [0, 0, 0, 0])
        batch[0] += 1
        batch[1] += input_ns
        batch[2] += infer_ns
        batch[3] += output_ns
        self.why[why] = self.why.get(why, 0) + 1
        self.last_ms = time.time_ns() // 1_000_000

    def answered(
        self,
        rows: int,
        request_ns: int,
        decode_ns: int,
        queue_ns: int,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
        encode_ns: int,
    ) -> None:
        """A request got its answer: the stages of its `request_ns`."""
        self.rows += rows
        self.request.add(request_ns)
        self.decode.add(decode_ns)
        self.queue.add(queue_ns)
        self.input_ns += input_ns
        self.infer.add(infer_ns)
        self.output_ns += output_ns
        self.encode.add(encode_ns)

    @property
    def successes(self) -> int:
        return self.request.count

    @property
    def executions(self) -> int:
        return sum(batch[0] for batch in self.batches.values())


class Statistics:
    """All counts. `table` gives the routes of now, for what is ready and what exists."""

    def __init__(self, table: Callable[[], RouteTable] | None = None) -> None:
        self._table = table
        self.by_variant: dict[Key, Counts] = {}
        self.failures: dict[Failure, list[int]] = {}
        """How many, and their nanoseconds."""

    def counts(self, subject: Subject, target: str) -> Counts:
        """The counts of one variant on a target."""
        key = (subject[0], subject[1], subject[2], target)
        found = self.by_variant.get(key)  # type: ignore[call-overload] # a plain tuple is the same key, and cheaper
        if found is None:
            found = self.by_variant[Key(*key)] = Counts()
        return found  # type: ignore[no-any-return]

    def failed(self, model: str, version: str, code: int, reason: str, request_ns: int) -> None:
        """A request got an error, or nothing."""
        failure = self.failures.setdefault(Failure(model, version, code, reason), [0, 0])
        failure[0] += 1
        failure[1] += request_ns

    def forget(self, model: str, version: str) -> None:
        """Drop the counts of a deleted version."""
        for key in [key for key in self.by_variant if key[:2] == (model, version)]:
            del self.by_variant[key]
        for failure in [failure for failure in self.failures if failure[:2] == (model, version)]:
            del self.failures[failure]

    def of(self, name: str | None = None, version: str | None = None) -> list[dict[str, Any]]:
        """`model_stats`: one entry per ready version of one model or of all, or of one version.

        Keys and words are Triton's (docs/protocol/extension_statistics.md), all numbers whole. Raises BadRequest.
        """
        models = {} if self._table is None else self._table().models
        if name is None:
            chosen = [(model, number) for model, routes in models.items() for number in routes.versions]
        elif name not in models or not models[name].versions:
            raise BadRequest(f"requested model '{name}' is not available")
        elif version is None:
            chosen = [(name, number) for number in models[name].versions]
        else:
            number = models[name].aliases.get(version, version)
            if number not in models[name].versions:
                raise BadRequest(f"requested model version is not available for model '{name}'")
            chosen = [(name, number)]
        return [self._entry(model, number, models[model]) for model, number in chosen]

    def _entry(self, name: str, version: str, routes: ModelRoutes) -> dict[str, Any]:
        counts = [counts for key, counts in self.by_variant.items() if key[:2] == (name, version)]
        failures = [figures for failure, figures in self.failures.items() if failure[:2] == (name, version)]
        successes = sum(one.successes for one in counts)
        stages = {
            "success": (successes, sum(one.request.total for one in counts)),
            "fail": (sum(count for count, _ in failures), sum(ns for _, ns in failures)),
            "queue": (successes, sum(one.queue.total for one in counts)),
            "compute_input": (successes, sum(one.input_ns for one in counts)),
            "compute_infer": (successes, sum(one.infer.total for one in counts)),
            "compute_output": (successes, sum(one.output_ns for one in counts)),
            "cache_hit": (0, 0),
            "cache_miss": (0, 0),
        }
        route = routes.versions[version]
        open_bytes = sum(route.variants[variant].size_bytes for variant in route.sessions)
        return {
            "name": name,
            "version": version,
            "last_inference": max((one.last_ms for one in counts), default=0),
            "inference_count": sum(one.rows for one in counts),
            "execution_count": sum(one.executions for one in counts),
            "inference_stats": {stage: _figures(*figures) for stage, figures in stages.items()},
            "response_stats": {},
            "batch_stats": list(_batches(counts)),
            "memory_usage": [{"type": "CPU", "id": 0, "byte_size": open_bytes}] if open_bytes else [],
        }


def _batches(counts: list[Counts]) -> Iterator[dict[str, Any]]:
    total: dict[int, Tally[int]] = {}
    for one in counts:
        for rows, figures in one.batches.items():
            total.setdefault(rows, Tally()).update(dict(enumerate(figures)))
    for rows, sums in sorted(total.items()):
        yield {
            "batch_size": rows,
            "compute_input": _figures(sums[0], sums[1]),
            "compute_infer": _figures(sums[0], sums[2]),
            "compute_output": _figures(sums[0], sums[3]),
        }


def _figures(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}

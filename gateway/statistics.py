"""What was answered, refused and run: every fact is counted here, once, and nowhere else.

The V2 statistics (PROTOCOL section 7) and the metrics (metrics.py) are two readings of these counts, so they cannot
disagree. Facts of a request (time in the queue, in the runtime, ...) are counted when its answer is encoded; facts of
a batch (that it ran, with how many rows) when it comes back from its runner, whoever still waits for it. Counts belong
to the version, not to a runner: they live until the version is deleted. What one variant did is in counts.py.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.counts import FAILURE_CELLS, Cells, Counts, OwnCells
from gateway.errors import BadRequest
from gateway.routing.health import Subject

if TYPE_CHECKING:
    from gateway.routing.router import ModelRoutes, RouteTable


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


class Statistics:
    """All counts of this process, and the readings that add those of `others` to them.

    `table` gives the routes of now, for what is ready and what exists. `cells`: where counts are kept.
    """

    def __init__(self, table: Callable[[], RouteTable] | None = None, cells: Cells | None = None) -> None:
        self._table = table
        self._cells = cells or OwnCells()
        self.by_variant: dict[Key, Counts] = {}
        self.failures: dict[Failure, MutableSequence[int]] = {}
        """How many, and their nanoseconds."""
        self.events: dict[tuple[str, str], MutableSequence[int]] = {}
        """What belongs to no version: (what, label) -> how often (one cell)."""
        self.others: Callable[[], Iterable[Statistics]] = tuple
        """What other processes counted for the same server (gateway/fronts)."""

    def counts(self, subject: Subject, target: str) -> Counts:
        """The counts of one variant on a target."""
        key = (subject[0], subject[1], subject[2], target)
        found = self.by_variant.get(key)  # type: ignore[call-overload] # a plain tuple is the same key, and cheaper
        if found is None:
            found = self.by_variant[Key(*key)] = Counts(self._cells, key)
        return found  # type: ignore[no-any-return]

    def failed(self, model: str, version: str, code: int, reason: str, request_ns: int) -> None:
        """A request got an error, or nothing."""
        key = Failure(model, version, code, reason)
        failure = self.failures.get(key)
        if failure is None:
            failure = self.failures[key] = self._cells.take("failure", key, FAILURE_CELLS)
        failure[0] += 1
        failure[1] += request_ns

    def happened(self, what: str, label: str = "") -> None:
        """Count an event."""
        event = self.events.get((what, label))
        if event is None:
            event = self.events[what, label] = self._cells.take("event", (what, label), 1)
        event[0] += 1

    def times(self, what: str, label: str = "") -> int:
        """How often an event happened, in every process."""
        return sum(one.events[what, label][0] for one in self.everyones() if (what, label) in one.events)

    def everyones(self) -> tuple[Statistics, ...]:
        """These and the others'."""
        return (self, *self.others())

    def absorb(self, other: Statistics, exists: Callable[[tuple[str, str]], bool]) -> None:
        """Add what another process counted that is no more; not that of versions which are gone."""
        for key, counts in other.by_variant.items():
            if exists(key[:2]):
                self.counts(Subject(*key[:3]), key.target).merge(counts)
        for failure, (count, ns) in other.failures.items():
            if not failure.version or exists(failure[:2]):
                self._add(self.failures, failure, "failure", failure, (count, ns))
        for event, (count,) in other.events.items():
            self._add(self.events, event, "event", event, (count,))

    def _add(self, table: dict[Any, MutableSequence[int]], key: Any, kind: str, name: Any, figures: Any) -> None:
        cells = table.get(key)
        if cells is None:
            cells = table[key] = self._cells.take(kind, name, len(figures))
        for nth, figure in enumerate(figures):
            cells[nth] += figure

    def forget(self, model: str, version: str) -> None:
        """Drop the counts of a deleted version."""
        for key in [key for key in self.by_variant if key[:2] == (model, version)]:
            del self.by_variant[key]
        for failure in [failure for failure in self.failures if failure[:2] == (model, version)]:
            del self.failures[failure]
        self._cells.drop(model, version)

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
        counts, failures = self._of_version(name, version)
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

    def _of_version(self, name: str, version: str) -> tuple[list[Counts], list[MutableSequence[int]]]:
        counts: list[Counts] = []
        failures: list[MutableSequence[int]] = []
        for one in self.everyones():
            counts += [each for key, each in one.by_variant.items() if key[:2] == (name, version)]
            failures += [figures for failure, figures in one.failures.items() if failure[:2] == (name, version)]
        return counts, failures


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

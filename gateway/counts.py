"""What one variant did, as counts and sums, and where they are kept.

A stage is the same stretch of time for a request and for its batch, so they add up: queue + compute_input +
compute_infer + compute_output <= success, and the rest is reading, decoding and encoding the body. Time in the queue
ends when the runner turns to the batch, not when it gets it: it gets one ahead.
"""

from __future__ import annotations

import time
from collections.abc import MutableSequence
from typing import Protocol

from gateway import series

_EXACT_SIZES = 512
"""Different batch sizes counted one by one; further ones count as the next power of two, so nobody can grow this."""


class Cells(Protocol):
    """Where counts are kept: whole numbers, 0 at first."""

    def take(self, kind: str, key: tuple[str | int, ...], count: int) -> MutableSequence[int]:
        """`count` new ones, to be counted up in place. Each pair of `kind` and `key` is taken once."""

    def drop(self, model: str, version: str) -> None:
        """A version was deleted: what was taken for keys that begin with it is of no interest any more."""


class OwnCells:
    """In the memory of this process, for itself alone."""

    def take(self, kind: str, key: tuple[str | int, ...], count: int) -> MutableSequence[int]:
        return [0] * count

    def drop(self, model: str, version: str) -> None:
        pass


_ROWS, _INPUT_NS, _OUTPUT_NS, _LAST_MS = range(4)
STAGES = ("request", "queue", "infer", "decode", "encode")
SUMS_CELLS, BATCH_CELLS, FAILURE_CELLS = 4, 4, 2


class Counts:
    """What one variant did. Durations in nanoseconds. `cells` and `key`: where it is kept, and as whose."""

    __slots__ = ("_cells", "_key", "batches", "decode", "encode", "infer", "queue", "request", "sums", "why")

    def __init__(self, cells: Cells | None = None, key: tuple[str | int, ...] = ()) -> None:
        self._cells, self._key = cells or OwnCells(), key
        self.request, self.queue, self.infer, self.decode, self.encode = (
            series.seconds(self._cells.take(stage, key, series.SECONDS_CELLS)) for stage in STAGES
        )
        self.sums = self._cells.take("sums", key, SUMS_CELLS)
        """Rows answered, nanoseconds of input and of output, when the last batch ended (milliseconds since 1970)."""
        self.batches: dict[int, MutableSequence[int]] = {}
        """Rows of a batch -> how many ran, and their nanoseconds of input, inference, output."""
        self.why: dict[str, MutableSequence[int]] = {}
        """The router's choice -> how many batches (one cell)."""

    def ran(self, rows: int, why: str, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """A batch of `rows` rows came back. `why`: the router's choice (ranking.Choice)."""
        batch = self.batches.get(rows)
        if batch is None:
            batch = self._batch(rows)
        batch[0] += 1
        batch[1] += input_ns
        batch[2] += infer_ns
        batch[3] += output_ns
        times = self.why.get(why)
        if times is None:
            times = self._why(why)
        times[0] += 1
        self.sums[_LAST_MS] = time.time_ns() // 1_000_000

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
        sums = self.sums
        sums[_ROWS] += rows
        sums[_INPUT_NS] += input_ns
        sums[_OUTPUT_NS] += output_ns
        self.request.add(request_ns)
        self.decode.add(decode_ns)
        self.queue.add(queue_ns)
        self.infer.add(infer_ns)
        self.encode.add(encode_ns)

    def merge(self, other: Counts) -> None:
        """Add all of `other`."""
        for stage in STAGES:
            getattr(self, stage).merge(getattr(other, stage))
        last_ms = max(self.last_ms, other.last_ms)
        for nth, figure in enumerate(other.sums):
            self.sums[nth] += figure
        self.sums[_LAST_MS] = last_ms
        for rows, figures in other.batches.items():
            batch = self.batches.get(rows) or self._batch(rows)
            for nth, figure in enumerate(figures):
                batch[nth] += figure
        for why, (times,) in other.why.items():
            self._why(why)[0] += times

    def _why(self, why: str) -> MutableSequence[int]:
        if why not in self.why:
            self.why[why] = self._cells.take("why", (*self._key, why), 1)
        return self.why[why]

    def _batch(self, rows: int) -> MutableSequence[int]:
        if len(self.batches) >= _EXACT_SIZES:
            rows = 1 << (rows - 1).bit_length()
        if rows not in self.batches:
            self.batches[rows] = self._cells.take("batch", (*self._key, rows), BATCH_CELLS)
        return self.batches[rows]

    @property
    def rows(self) -> int:
        return self.sums[_ROWS]

    @property
    def input_ns(self) -> int:
        return self.sums[_INPUT_NS]

    @property
    def output_ns(self) -> int:
        return self.sums[_OUTPUT_NS]

    @property
    def last_ms(self) -> int:
        return self.sums[_LAST_MS]

    @property
    def successes(self) -> int:
        return self.request.count

    @property
    def executions(self) -> int:
        return sum(batch[0] for batch in self.batches.values())

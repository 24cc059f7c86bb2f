"""A batch on its way through a runner, and what its end means for the requests in it: an answer, another try, an error.

A neighbour is never harmed: when a batch fails, or killed its runner, its items run again one by one, so only the one
that is to blame gets the error.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.batching.batch import Answer, Item, part
from gateway.batching.padding import without_padding
from gateway.errors import ModelFailed, RunnerDied
from gateway.routing.health import Subject
from gateway.routing.ranking import Choice
from gateway.running.blame import Part
from gateway.running.wire import Done, WireError
from model_store.entities import REFERENCE

if TYPE_CHECKING:
    from gateway.batching.batcher import Batcher


class Batch:
    """Items on their way through a runner (the `Work` of gateway/running/runner.py)."""

    __slots__ = (
        "choice", "deadline_ns", "expected_s", "items", "owner", "padded", "row_bytes", "rows", "sent_ns", "session",
    )  # fmt: skip

    def __init__(self, owner: Batcher, items: list[Item], choice: Choice, padded: int = 0) -> None:
        self.owner = owner
        self.items = items
        self.choice = choice
        self.session = choice.session
        self.rows = sum(item.rows for item in items)
        self.padded = padded
        """Rows it is filled up to in the runner; 0: none are added."""
        self.row_bytes = items[0].nbytes // max(1, items[0].rows)
        self.expected_s = choice.session.live.expected_s(padded or self.rows, self.row_bytes)
        """Seconds it is expected to run."""
        self.deadline_ns = max(item.deadline_ns for item in items)
        self.sent_ns = 0

    def done(self, done: Done, slot: memoryview) -> None:
        self.owner.ran(self, done.start_ns, done.end_ns)
        try:
            outcome = without_padding(slot, done, self.rows, self.padded) if self.padded else done
            parted = None if outcome is None else part(slot, outcome, self.items)
        except WireError:  # texts whose rows nobody can tell
            parted = None
        if parted is None:
            self._one_by_one()
            return
        variant, session, why = self.choice
        sent_ns, start_ns, end_ns, rows = self.sent_ns, done.start_ns, done.end_ns, self.rows
        answered_ns = time.monotonic_ns()
        route = self.owner.route
        counts = self.owner.statistics.counts(Subject(route.name, route.version, variant), session.target)
        counts.ran(rows, why, start_ns - sent_ns, end_ns - start_ns, answered_ns - end_ns)
        for item, outputs in zip(self.items, parted, strict=True):
            if not item.answer.done():  # the client may have gone
                item.answer.set_result(
                    Answer(
                        outputs, variant, session.target, why, item.queued_ns, sent_ns, start_ns, end_ns, answered_ns,
                        rows, counts,
                    )
                )  # fmt: skip

    def failed(self, text: str) -> None:
        """The runtime refused the batch: find out who is to blame; then let the reference try; then say so."""
        if len(self.items) > 1:
            self._one_by_one()
            return
        item = self.items[0]
        if item.pin is None and item.attempts == 0 and self.choice.variant != REFERENCE:
            item.attempts += 1
            item.avoid = self.choice.variant
            self.owner.again([item])
            return
        item.fail(ModelFailed(text))

    def died(self, error: RunnerDied, part: Part) -> None:
        """The runner is gone. Bystanders go back to the queue; the suspects try once more, each alone, elsewhere."""
        if part is Part.CULPRIT:
            self.owner.killed(self.choice, error.cause)
        if part is not Part.BYSTANDER:
            for item in self.items:
                item.attempts += 1
                item.alone = True
                item.avoid = self.choice.variant
                if item.attempts > 1:
                    item.fail(error)
        self.owner.again(self.items)

    def _one_by_one(self) -> None:
        for item in self.items:
            item.alone = True
        self.owner.again(self.items)

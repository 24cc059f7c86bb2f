"""The queue of one model version, and the batches that leave it.

Requests that may run together (same pin, same trailing shapes) wait in one lane. There is no waiting for company: a
batch leaves as soon as a runner has a free slot, with whatever waits then. Dead items (client gone) and late ones
(deadline passed) are dropped before they cost anything.

A neighbour is never harmed: when a batch fails, or killed its runner, its items run again one by one, so only the one
that is to blame gets the error.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.batch import Answer, Item, part, slot_bytes_needed
from gateway.errors import ClientGone, DeadlineExceeded, GatewayError, ModelFailed, NotReady, RunnerDied
from gateway.health import Health, Subject
from gateway.ranking import Choice, VersionRoute
from gateway.runner import Runner, Session
from gateway.statistics import Statistics
from gateway.tensors import Checked, InputCheck
from gateway.wire import Done
from model_store.entities import REFERENCE

Lane = tuple[Any, ...]
Runners = Callable[[str], Runner | None]
_INPUT_SHARE = 2
"""Inputs of a batch of several requests take at most one half of the slot: the other half is for the outputs."""


class Batcher:
    """One version's queue. `wake` asks for a pump; `runner_of(target)` is the runner a session lives in."""

    def __init__(
        self,
        route: VersionRoute,
        health: Health,
        runner_of: Runners,
        wake: Callable[[Batcher], None],
        statistics: Statistics,
    ) -> None:
        self.route = route
        self.statistics = statistics
        self.check = InputCheck(route.name, route.signature)
        self.waiting_rows = 0
        self._health = health
        self._runner_of = runner_of
        self._wake = wake
        self._lanes: OrderedDict[Lane, deque[Item]] = OrderedDict()
        self._last: Session | None = None
        self._create_future = asyncio.get_running_loop().create_future

    @property
    def empty(self) -> bool:
        return not self._lanes

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return sum(map(len, self._lanes.values()))

    def submit(
        self,
        checked: Checked,
        deadline_ns: int,
        pin: str | None = None,
        gone: Callable[[], Awaitable[Any]] | None = None,
    ) -> asyncio.Future[Answer]:
        """Queue one request; the future is its answer. Cancel it to withdraw the request."""
        answer: asyncio.Future[Answer] = self._create_future()
        self._queue(Item(checked, answer, time.monotonic_ns(), deadline_ns, pin, gone))
        return answer

    def expected_wait_s(self) -> float:
        """Time the rows that wait will take, as far as it is known."""
        if not self.waiting_rows:
            return 0.0
        return self.waiting_rows * (self._last.row_s or 0.0) if self._last is not None else 0.0

    def dispatch(self) -> bool:
        """Send one batch if there is one and a runner has a slot for it."""
        for lane, waiting in list(self._lanes.items()):
            self._drop_dead(waiting)
            if not waiting:
                del self._lanes[lane]
                continue
            alike = self.waiting_rows if len(self._lanes) == 1 else sum(item.rows for item in waiting)
            choice = self._choose(waiting[0], alike)
            runner = None if choice is None else self._runner_of(choice.session.target)
            if choice is None or runner is None or not runner.has_free_slot:
                continue
            if items := self._gather(waiting, runner.slot_bytes):
                self._last = choice.session
                runner.dispatch(Batch(self, items, choice))
            if waiting:
                self._lanes.move_to_end(lane)
            else:
                del self._lanes[lane]
            if items:
                return True
        return False

    def sweep(self, now_ns: int, watch_before_ns: int) -> None:
        """Answer who is late or hopeless; watch the clients of those who wait since `watch_before_ns`."""
        for lane, waiting in list(self._lanes.items()):
            hopeless = self._hopeless(waiting[0])
            for item in waiting:
                if hopeless is not None:
                    item.fail(hopeless)
                elif now_ns > item.deadline_ns:
                    item.fail(late())
                elif item.watch is None and item.gone is not None and item.queued_ns < watch_before_ns:
                    item.watch = asyncio.ensure_future(_withdraw_when_gone(item))
            self._drop_dead(waiting)
            if not waiting:
                del self._lanes[lane]

    def fail_all(self, error: Exception) -> None:
        for waiting in self._lanes.values():
            for item in waiting:
                item.fail(error)
        self._lanes.clear()
        self.waiting_rows = 0

    def again(self, items: list[Item]) -> None:
        """Put items that were dispatched back at the front, in their order."""
        for item in reversed(items):
            if not item.answer.done():
                self._queue(item, front=True)

    def killed(self, choice: Choice, cause: str) -> None:
        """The variant killed its runner; enough of that quarantines it."""
        self._health.died(Subject(self.route.name, self.route.version, choice.variant), cause)

    def _queue(self, item: Item, front: bool = False) -> None:
        lane: Lane = (item.pin, item.avoid) if item.alone else (item.pin, item.avoid, item.key)
        waiting = self._lanes.get(lane)
        if waiting is None:
            waiting = self._lanes[lane] = deque()
        if front:
            waiting.appendleft(item)
        else:
            waiting.append(item)
        self.waiting_rows += item.rows
        self._wake(self)

    def _gather(self, waiting: deque[Item], slot_bytes: int) -> list[Item]:
        """Take what may run together, at most `max_rows` rows; one item is taken whatever its size."""
        items: list[Item] = []
        rows = nbytes = 0
        limit, now = self.route.max_rows, time.monotonic_ns()
        while waiting:
            item = waiting[0]
            if item.answer.done() or now > item.deadline_ns:
                self._leave(waiting)
                item.fail(late())
                continue
            if items and (rows + item.rows > limit or nbytes + item.nbytes > slot_bytes // _INPUT_SHARE):
                break
            self._leave(waiting)
            if not items and slot_bytes_needed([item]) > slot_bytes:
                item.fail(ModelFailed(f"inputs of {item.nbytes} bytes do not fit a slot of {slot_bytes} (slot_bytes)"))
                continue
            items.append(item)
            rows += item.rows
            nbytes += item.nbytes
            if item.alone or rows >= limit:
                break
        return items

    def _drop_dead(self, waiting: deque[Item]) -> None:
        while waiting and waiting[0].answer.done():
            self._leave(waiting)

    def _leave(self, waiting: deque[Item]) -> None:
        self.waiting_rows -= waiting.popleft().rows

    def _choose(self, head: Item, rows_waiting: int) -> Choice | None:
        if head.pin is not None:
            return self.route.pinned(head.pin, self._usable)
        rows = head.rows if head.alone else max(head.rows, min(rows_waiting, self.route.max_rows))
        return self.route.pick(rows, self._usable, head.avoid)

    def _usable(self, variant: str, session: Session) -> bool:
        return session.ready and not self._health.quarantined(Subject(self.route.name, self.route.version, variant))

    def _hopeless(self, head: Item) -> GatewayError | None:
        """Why waiting is in vain for items like `head`; None while something can answer or is on its way."""
        if self._choose(head, head.rows) is not None:
            return None
        route = self.route
        ids = (head.pin,) if head.pin is not None else next(iter(route.ranked.values()))
        reasons = []
        for variant in ids:
            words = self._health.words(Subject(route.name, route.version, variant))
            session = route.sessions.get(variant)
            if words.startswith("quarantined"):
                reasons.append(f"{variant} is {words}")
            elif session is None or session.closed:
                continue
            else:
                runner = self._runner_of(session.target)
                if runner is None or not runner.trouble:
                    return None
                reasons.append(f"{variant}: {runner.trouble}")
        where = f"model '{route.name}' version {route.version}"
        return NotReady(f"{where} cannot answer now: " + ("; ".join(reasons) or "no variant of it is open"))


class Batch:
    """Items on their way through a runner (the `Work` of gateway/runner.py)."""

    __slots__ = ("choice", "deadline_ns", "items", "owner", "rows", "sent_ns", "session")

    def __init__(self, owner: Batcher, items: list[Item], choice: Choice) -> None:
        self.owner = owner
        self.items = items
        self.choice = choice
        self.session = choice.session
        self.rows = sum(item.rows for item in items)
        self.deadline_ns = max(item.deadline_ns for item in items)
        self.sent_ns = 0

    def done(self, done: Done, slot: memoryview) -> None:
        parted = part(slot, done, self.items)
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

    def died(self, error: RunnerDied, guilty: bool) -> None:
        """The runner is gone. Bystanders go back to the queue; the suspects try once more, each alone, elsewhere."""
        if guilty:
            self.owner.killed(self.choice, error.cause)
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


def late() -> DeadlineExceeded:
    return DeadlineExceeded("Request timeout expired")


async def _withdraw_when_gone(item: Item) -> None:
    if item.gone is not None:
        await item.gone()
        item.fail(ClientGone("the client left before its request was dispatched"))

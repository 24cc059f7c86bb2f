"""The queue of one model version, and the batches that leave it.

Requests that may run together wait in one lane (lanes.py). There is no waiting for company: a batch leaves as
soon as a runner has a free slot, with whatever waits then. Dead items (client gone) and late ones (deadline passed) are
dropped before they cost anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.batching.batch import Answer, Item, slot_bytes_needed
from gateway.batching.flight import Batch
from gateway.batching.lanes import Lanes
from gateway.batching.line import DEFAULT_LEVEL, Line, level_of
from gateway.batching.padding import padded_rows
from gateway.batching.splitting import Cut, cut
from gateway.batching.standstill import standstill
from gateway.errors import ClientGone, DeadlineExceeded, GatewayError, ModelFailed, QueueTimeout
from gateway.routing.forecast import Forecast
from gateway.routing.health import Health, Subject
from gateway.routing.ranking import Choice, VersionRoute
from gateway.running.runner import Runner
from gateway.running.session import Session
from gateway.statistics import Statistics
from gateway.tensors import Checked, InputCheck

Runners = Callable[[str], Runner | None]
_INPUT_SHARE = 2
"""Inputs of a batch of several requests take at most one half of the slot: the other half is for the outputs."""


class Batcher:
    """One version's queue. `runner_of(target)` is the runner a session lives in. `wake(batcher, fresh)` asks for a
    pump, for a new request or for one that comes back."""

    def __init__(
        self,
        route: VersionRoute,
        health: Health,
        runner_of: Runners,
        wake: Callable[[Batcher, bool], None],
        statistics: Statistics,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.route = route
        self.statistics = statistics
        self.check = InputCheck(route.name, route.signature)
        self.served_s = 0.0
        self._health = health
        self.forecast = Forecast(route, runner_of, clock)
        self._runner_of = runner_of
        self._wake = wake
        self._clock = clock
        self._lanes = Lanes()
        self._last: Session | None = None
        self._create_future = asyncio.get_running_loop().create_future

    @property
    def empty(self) -> bool:
        return not self._lanes

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._lanes)

    @property
    def waiting_rows(self) -> int:
        return self._lanes.rows

    def submit(
        self,
        checked: Checked,
        deadline_ns: int,
        pin: str | None = None,
        gone: Callable[[], Awaitable[Any]] | None = None,
        priority: int = 0,
    ) -> asyncio.Future[Answer]:
        """Queue one request; the future is its answer. Cancel it to withdraw the request."""
        answer: asyncio.Future[Answer] = self._create_future()
        level = level_of(priority) if priority else DEFAULT_LEVEL
        if checked.rows > self.route.cut_rows > 0 and checked.key is not None:
            self._queue_parts(checked, answer, deadline_ns, pin, gone, level)
        else:
            self._queue(Item(checked, answer, self._clock(), deadline_ns, pin, gone, level))
        return answer

    def _queue_parts(
        self,
        checked: Checked,
        answer: asyncio.Future[Answer],
        deadline_ns: int,
        pin: str | None,
        gone: Callable[[], Awaitable[Any]] | None,
        level: int,
    ) -> None:
        """Queue a request that has too many rows for one batch (splitting.py)."""
        now = self._clock()

        def whole() -> None:
            item = Item(checked, answer, now, deadline_ns, pin, gone, level)
            item.alone = True
            self._queue(item)

        parts = cut(checked, self.route.cut_rows)
        replies = Cut(answer, [part.rows for part in parts], whole).parts
        for part, reply in zip(parts, replies, strict=True):
            watched = gone if part is parts[-1] else None  # the last one waits longest
            self._queue(Item(part, reply, now, deadline_ns, pin, watched, level))

    def expected_wait_s(self) -> float:
        """Time the rows that wait will take, as far as it is known."""
        return 0.0 if self._last is None else self._lanes.rows * (self._last.live.row_s or 0.0)

    def dispatch(self) -> bool:
        """Send one batch if there is one and a runner has a slot for it."""
        lanes = self._lanes
        lanes.drop_dead()
        for lane, line in lanes.in_turn():
            head = lanes.head(line)
            choice, rows = self._choose(head, lanes.alike(line))
            runner = None if choice is None else self._runner_of(choice.session.target)
            if choice is None or runner is None or not runner.has_free_slot:
                continue
            most = self.route.gathered.get(choice.variant, self.route.max_rows)
            items = self._gather(line, head.level, runner.slot_bytes, most)
            if items and not self._suits(choice, rows, items):
                choice, _ = self._choose(items[0], sum(item.rows for item in items))
                runner = None if choice is None else self._runner_of(choice.session.target)
                if choice is None or runner is None or not runner.has_free_slot:
                    lanes.back(items)
                    continue
            lanes.left(lane, items)
            if items:
                self._last = choice.session
                batch = Batch(self, items, choice, self._padded(choice, items, runner.slot_bytes))
                self.served_s += batch.expected_s
                runner.dispatch(batch)
                return True
        return False

    def sweep(self, now_ns: int, watch_before_ns: int) -> None:
        """Answer who is late or hopeless; watch the clients of those who wait since `watch_before_ns`."""
        for line in self._lanes.lines():
            hopeless = self._hopeless(line.head())
            for item in line:
                if hopeless is not None:
                    item.fail(hopeless)
                elif now_ns > item.deadline_ns:
                    item.fail(expired())
                elif item.watch is None and item.gone is not None and item.queued_ns < watch_before_ns:
                    item.watch = asyncio.ensure_future(_withdraw_when_gone(item))
        self._lanes.drop_dead()

    def fail_all(self, error: Exception) -> None:
        for item in self._lanes:
            item.fail(error)
        self._lanes.clear()

    def again(self, items: list[Item]) -> None:
        """Put items that were dispatched back at the front, in their order."""
        for item in reversed(items):
            if not item.answer.done():
                self._queue(item, front=True)

    def killed(self, choice: Choice, cause: str) -> None:
        """The variant killed its runner; enough of that quarantines it."""
        self._health.died(Subject(self.route.name, self.route.version, choice.variant), cause)

    def ran(self, batch: Batch, start_ns: int, end_ns: int) -> None:
        """A batch of this version ran: what it took is charged and learnt."""
        self.served_s += (end_ns - start_ns) / 1e9 - batch.expected_s
        rows = max(1, batch.padded or batch.rows)
        self.forecast.learn(self.route, batch.choice, rows, batch.row_bytes, start_ns, end_ns)

    def _queue(self, item: Item, front: bool = False) -> None:
        self._lanes.put(item, front)
        self._wake(self, not front)

    def _gather(self, line: Line, level: int | None, slot_bytes: int, limit: int) -> list[Item]:
        """Take what may run together, at most `limit` rows, beginning with the first of `level`; one item is taken
        whatever its size."""
        items: list[Item] = []
        rows = nbytes = 0
        now = self._clock()
        while line:
            item = line.head(level)
            if item.answer.done() or now > item.deadline_ns:
                self._lanes.rows -= line.take(level).rows
                item.fail(expired())
                continue
            if items and (rows + item.rows > limit or nbytes + item.nbytes > slot_bytes // _INPUT_SHARE):
                break
            self._lanes.rows -= line.take(level).rows
            if not items and slot_bytes_needed([item]) > slot_bytes:
                item.fail(ModelFailed(f"inputs of {item.nbytes} bytes do not fit a slot of {slot_bytes} (slot_bytes)"))
                continue
            items.append(item)
            level = None
            rows += item.rows
            nbytes += item.nbytes
            if item.alone or rows >= limit:
                break
        return items

    def _suits(self, choice: Choice, rows: int, items: list[Item]) -> bool:
        """Whether the choice made for `rows` rows holds for what was gathered: it is proven in a bucket, not beyond."""
        if len(self.route.sessions) == 1 or choice.why == "pinned":
            return True
        return self.route.bucket(rows) == self.route.bucket(sum(item.rows for item in items))

    def _padded(self, choice: Choice, items: list[Item], slot_bytes: int) -> int:
        """Rows the batch is filled up to; 0: it runs as it is."""
        buckets = self.route.padded.get(choice.variant)
        if buckets is None or items[0].alone:
            return 0
        nbytes = sum(item.nbytes for item in items)
        return padded_rows(sum(item.rows for item in items), buckets, nbytes, slot_bytes // _INPUT_SHARE)

    def _choose(self, head: Item, rows_waiting: int) -> tuple[Choice | None, int]:
        """Who answers a batch that `head` leads, and how many rows that was chosen for."""
        route = self.route
        if head.pin is not None:
            return route.pinned(head.pin, self._usable), head.rows
        rows = head.rows if head.alone else max(head.rows, min(rows_waiting, route.max_rows))
        choice = self._pick(head, rows, rows_waiting)
        if choice is not None and rows > (most := max(head.rows, route.gathered.get(choice.variant, rows))):
            rows = most
            if len(route.sessions) > 1:
                choice = self._pick(head, rows, rows_waiting)
        return choice, rows

    def _pick(self, head: Item, rows: int, rows_waiting: int) -> Choice | None:
        choice = self.route.pick(rows, self._usable, head.avoid)
        if choice is None or len(self.route.sessions) == 1 or head.avoid is not None or not head.rows:
            return choice
        return self.forecast.choose(self.route, choice, rows, head.nbytes // head.rows, rows_waiting, self._usable)

    def _usable(self, variant: str, session: Session) -> bool:
        return session.ready and not self._health.quarantined(Subject(self.route.name, self.route.version, variant))

    def _hopeless(self, head: Item) -> GatewayError | None:
        """Why waiting is in vain for items like `head`; None while something can answer or is on its way."""
        route = self.route
        if head.pin is not None:
            able = route.pinned(head.pin, self._usable)
        else:
            able = route.pick(head.rows, self._usable, head.avoid)
        if able is not None:
            return None
        ids = next(iter(route.ranked.values())) if head.pin is None else (head.pin,)
        return standstill(route, ids, self._health, self._runner_of)


def late() -> DeadlineExceeded:
    """The deadline passed while the request was in a runner."""
    return DeadlineExceeded("Request timeout expired")


def expired() -> QueueTimeout:
    """The deadline passed while the request waited: it never ran."""
    return QueueTimeout("Request timeout expired")


async def _withdraw_when_gone(item: Item) -> None:
    if item.gone is not None:
        await item.gone()
        item.fail(ClientGone("the client left before its request was dispatched"))

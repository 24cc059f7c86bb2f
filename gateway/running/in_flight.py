"""The batches that a runner has: where they lie, which of them run, and whether it may be given another.

As many run as their sessions were planned for side by side (instances.py); at most one more is prefetched, so that the
runner never waits for the gateway between batches, and queues stay here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Protocol

from gateway.batching.batch import Item
from gateway.errors import RunnerDied
from gateway.running import wire
from gateway.running.blame import Part
from gateway.running.instances import together
from gateway.running.session import Session
from gateway.running.slots import SlotMemory

GRACE_S = 0.1
PATIENCE = 10.0
"""A run is called hung only after this many times its expected time: a client's short deadline must not kill it."""

PREFETCH_FROM_S = 0.0003
"""Behind a batch that is expected to be over sooner none is prefetched: the runner would hardly wait for it, and what
comes meanwhile makes it larger, which saves both sides more."""


class Work(Protocol):
    """A batch as the runner sees it (gateway/batching/flight.py)."""

    items: list[Item]
    rows: int
    padded: int
    expected_s: float
    session: Session
    deadline_ns: int
    sent_ns: int

    def done(self, done: wire.Done, slot: memoryview) -> None: ...

    def failed(self, text: str) -> None: ...

    def died(self, error: RunnerDied, part: Part) -> None: ...


class Sent:
    """A batch in the runner: where it lies, beside how many it may run, and since when it runs (0: it waits)."""

    __slots__ = ("begun_ns", "instances", "slot", "work")

    def __init__(self, slot: int, work: Work, instances: int) -> None:
        self.slot = slot
        self.work = work
        self.instances = instances
        self.begun_ns = 0


class InFlight:
    """Of one runner. `crowded_ns`: how long batches of other gateway processes may keep it from one of ours."""

    def __init__(self, memory: SlotMemory, crowded_ns: int) -> None:
        self._memory = memory
        self._slots = memory.count
        self._crowded_ns = crowded_ns
        self.free = list(range(self._slots))
        self._sent: dict[int, Sent] = {}
        """By batch number, oldest first: the first `_begun` run."""
        self._begun = 0
        self._ended_ns = 0
        self._room = 0
        """Batches there may be beside those that are there, the last one included."""
        self._batches = 0

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Work]:
        """Oldest first."""
        return (sent.work for sent in self._sent.values())

    @property
    def has_room(self) -> bool:
        sent = self._sent
        if not sent:
            return bool(self.free)
        return self._begun == len(sent) and bool(self.free) and len(sent) < self._room

    def backlog_s(self, now_ns: int) -> float:
        """Seconds until a batch that is sent now would begin, as far as runs take what is expected of them."""
        sent = self._sent.values()
        if len(sent) < min([one.instances for one in sent], default=1):
            return 0.0
        left_s = 0.0
        for one in sent:
            ran_s = (now_ns - one.begun_ns) / 1e9 if one.begun_ns else 0.0
            left_s += max(0.0, one.work.expected_s - ran_s) / one.instances
        return left_s

    def ran_at(self, moment_ns: int) -> bool:
        """Whether a batch ran then, or not long after. For moments that have just been."""
        return self._ended_ns >= moment_ns or any(0 < one.begun_ns <= moment_ns for one in self._sent.values())

    def add(self, slot: int, work: Work) -> tuple[int, int]:
        """Note a batch that is about to be sent; its number, and how many may run while it does."""
        # Whoever may have killed a runner is alone in its batch the next time, and has none beside it: that will tell.
        instances = 1 if work.items[0].attempts else min(work.session.instances(work.sent_ns), self._slots - 1)
        self._batches += 1
        self._sent[self._batches] = Sent(slot, work, instances)
        self._begin(work.sent_ns)
        self._room = instances if work.expected_s < PREFETCH_FROM_S else self._slots
        return self._batches, instances

    def pop(self, message: wire.Done | wire.Failed) -> Work:
        """Take the batch out that `message` is of. Its slot is free from now on: whoever refills it comes after this
        callback. Raises WireError when there is no such batch."""
        sent = self._sent.get(message.batch)
        if sent is None or sent.slot != message.slot:
            raise wire.WireError(f"no batch {message.batch} is in flight in slot {message.slot}")
        del self._sent[message.batch]
        self.free.append(sent.slot)
        self._ended_ns = message.end_ns
        self._begin(message.end_ns)
        if self._crowded_ns:  # until the runner turned to it, it ran batches of others
            sent.work.sent_ns = max(sent.work.sent_ns, -self._memory.marks[sent.slot])
        return sent.work

    def hangs(self, now_ns: int) -> bool:
        """Whether a batch is over its time."""
        for sent in self._sent.values():
            work = sent.work
            patience_s = PATIENCE * work.expected_s + GRACE_S
            begun_ns, others_ns = self._memory.marks[sent.slot], 0
            if begun_ns <= 0:
                begun_ns, others_ns = sent.begun_ns, self._crowded_ns
            due_ns = max(work.deadline_ns + int(GRACE_S * 1e9), begun_ns + int(patience_s * 1e9))
            if begun_ns and now_ns > due_ns + others_ns:
                return True
        return False

    def lost(self) -> tuple[list[Work], int]:
        """The runner died: what it had, and how many of the first ran. Nothing is in flight any more.

        Where others use the runner too, its marks tell what ran.
        """
        sent, begun = list(self._sent.values()), self._begun
        if self._crowded_ns:
            marks = self._memory.marks
            sent.sort(key=lambda one: marks[one.slot] <= 0)
            begun = sum(marks[one.slot] > 0 for one in sent)
        self._sent, self._begun, self.free = {}, 0, list(range(self._slots))
        return [one.work for one in sent], begun

    def _begin(self, since_ns: int) -> None:
        """Note which batches run now; those that did not before run since `since_ns`.

        A prefetched batch waits in its slot until one before it has run: that is time in the queue, not of input.
        """
        sent = self._sent.values()
        self._begun = together([one.instances for one in sent]) if len(sent) > 1 else len(sent)
        now = time.monotonic_ns()
        for one in itertools.islice(sent, self._begun):
            if not one.begun_ns:
                one.begun_ns = now
                one.work.sent_ns = max(one.work.sent_ns, since_ns)

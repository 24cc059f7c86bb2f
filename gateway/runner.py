"""The parent's side of one runner process: open sessions in it, feed it batches, start it again when it dies.

A dead runner costs the batch it was running; a batch that was only prefetched goes back to its queue untouched. A new
process starts at once, or after a growing pause when processes die before they are ready, and reopens the sessions,
most recently used first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from gateway import wire
from gateway.batch import Item, fill
from gateway.errors import RunnerDied
from gateway.health import Subject
from gateway.runner_process import Death, RunnerProcess
from gateway.slots import SlotMemory

SLOTS = 2
"""One batch running, one prefetched: the runner never waits for the gateway between batches, and queues stay here."""

GRACE_S = 0.1
PATIENCE = 10.0
"""A run is called hung only after this many times its expected time: a client's short deadline must not kill it."""

LINGER_NS, LINGER_RUN_S = 200_000, 0.0001
"""How long an answer is waited for on the spot, and how quick its run must be for that."""

UNKNOWN_RUN_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_BROKEN_STARTS = 3
log = logging.getLogger("forgeway.runner")


class LoadRefused(Exception):
    """The runtime cannot open this variant, or the runner died twice while it tried."""


class Session:
    """A variant as a runner holds it: wanted from `Runner.load` to `unload`, `ready` while it can run."""

    def __init__(self, subject: Subject, load: wire.Load, target: str) -> None:
        self.subject = subject
        self.load = load
        self.target = target
        self.ready = False
        self.closed = False
        self.last_used = 0
        self.row_s: float | None = None
        """Seconds a row costs, as last seen (moving average)."""
        self.deaths_at_load = 0
        self.opened: asyncio.Future[wire.Loaded] = asyncio.get_running_loop().create_future()

    def expected_s(self, rows: int) -> float:
        return UNKNOWN_RUN_S if self.row_s is None else self.row_s * max(1, rows)

    def learn(self, rows: int, seconds: float) -> None:
        per_row = seconds / max(1, rows)
        self.row_s = per_row if self.row_s is None else 0.9 * self.row_s + 0.1 * per_row


class _Lingering:
    """Whether to wait on the spot: after each time it was in vain, twice as many batches go without."""

    __slots__ = ("_last_pause", "_pause")

    def __init__(self) -> None:
        self._pause = self._last_pause = 0

    def worth_it(self) -> bool:
        if self._pause:
            self._pause -= 1
            return False
        return True

    def paid(self) -> None:
        self._last_pause = 0

    def lost(self) -> None:
        self._pause = self._last_pause = min(256, 2 * self._last_pause + 1)


class Work(Protocol):
    """A batch as the runner sees it (gateway/batcher.py)."""

    items: list[Item]
    rows: int
    session: Session
    deadline_ns: int
    sent_ns: int

    def done(self, done: wire.Done, slot: memoryview) -> None: ...

    def failed(self, text: str) -> None: ...

    def died(self, error: RunnerDied, guilty: bool) -> None: ...


class Runner:
    """One child process of one target. `on_free` is called whenever it can take more; `on_death(target, cause)`."""

    def __init__(
        self,
        target: str,
        slot_bytes: int,
        load_timeout_s: float,
        on_free: Callable[[], None],
        on_death: Callable[[str, str], None],
    ) -> None:
        self.target = target
        self.restarts = 0
        self.ready = False
        self.trouble = ""
        """Why it cannot start, once several processes died before they were ready."""
        self._memory = SlotMemory.create(SLOTS, slot_bytes)
        self._load_timeout_s = load_timeout_s
        self._on_free = on_free
        self._on_death = on_death
        self._sessions: dict[int, Session] = {}
        self._to_load: deque[Session] = deque()
        self._loading: Session | None = None
        self._load_since = 0
        self._free = list(range(SLOTS))
        self._running: dict[int, tuple[int, Work]] = {}
        """Batch number -> (slot, work), oldest first: the first one is running, the next one prefetched."""
        self._head_ns = self._ran_until_ns = 0
        self._batches = 0
        self._lingers = _Lingering()
        self._process: RunnerProcess | None = None
        self._closed: asyncio.Event | None = None
        self._failed_starts = 0
        self._restart: asyncio.TimerHandle | None = None

    @property
    def slot_bytes(self) -> int:
        return self._memory.slot_bytes

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def has_free_slot(self) -> bool:
        return self.ready and bool(self._free)

    @property
    def inflight(self) -> int:
        return len(self._running)

    @property
    def sessions(self) -> tuple[Session, ...]:
        return tuple(self._sessions.values())

    def items(self) -> Iterator[Item]:
        """Every item in flight."""
        return (item for _, work in self._running.values() for item in work.items)

    def start(self) -> None:
        args = ["--target", self.target, "--memory", str(self._memory.fd)]
        args += ["--slots", str(SLOTS), "--slot-bytes", str(self._memory.slot_bytes)]
        self._process = RunnerProcess("gateway.runner_main", args, [self._memory.fd], self._take, self._dead)

    def load(self, session: Session, first: bool = False) -> None:
        """Open `session`; await `session.opened` for the outcome. `first`: before others that wait to be opened."""
        self._sessions[session.load.session] = session
        if first:
            self._to_load.appendleft(session)
        else:
            self._to_load.append(session)
        self._load_next()

    def unload(self, session: Session) -> None:
        """Close `session` after the batches already sent to it (messages keep their order)."""
        session.closed = True
        self._sessions.pop(session.load.session, None)
        if session in self._to_load:
            self._to_load.remove(session)
        if session.ready and self._process is not None:
            self._process.send(wire.pack_body(wire.Unload(session.load.session)))
        session.ready = False
        if not session.opened.done():
            session.opened.cancel()

    def dispatch(self, work: Work) -> None:
        """Copy the inputs into a free slot and tell the runner. Only when `has_free_slot`."""
        assert self._process is not None
        slot = self._free.pop()
        work.sent_ns = time.monotonic_ns()
        places, end = fill(self._memory.slots[slot], work.items)
        self._batches += 1
        if not self._running:
            self._head_ns = work.sent_ns
        self._running[self._batches] = (slot, work)
        self._memory.used(slot, end)
        work.session.last_used = work.sent_ns
        self._process.send(wire.pack_run(slot, work.session.load.session, self._batches, end, places))

    def linger(self) -> None:
        """Wait a moment, on the spot, for the one batch in flight, if it is worth it.

        For when this process has nothing else to do: going to sleep and being woken takes longer than a small model
        runs. Whoever comes meanwhile waits for at most `LINGER_NS`.
        """
        process = self._process
        if process is None or not self._running or not self._lingers.worth_it():
            return
        _, work = next(iter(self._running.values()))
        if work.session.expected_s(work.rows) > LINGER_RUN_S:
            return
        until = time.monotonic_ns() + LINGER_NS
        while time.monotonic_ns() < until:
            if data := process.receive_now():
                self._lingers.paid()
                self._take(data)
                return
            os.sched_yield()
        self._lingers.lost()

    def sweep(self) -> None:
        """Kill a process whose batch, or whose opening of a session, is over its time. Called every few ms."""
        now = time.monotonic_ns()
        if self._running:
            _, work = next(iter(self._running.values()))
            patience_s = PATIENCE * work.session.expected_s(work.rows) + GRACE_S
            if now > max(work.deadline_ns + int(GRACE_S * 1e9), self._head_ns + int(patience_s * 1e9)):
                self._kill("hang")
        if self._loading is not None and now - self._load_since > self._load_timeout_s * 1e9:
            self._kill("hang")

    def trim(self) -> None:
        """Give memory of unusually large batches back. Called about once a second."""
        self._memory.trim(self._free)

    async def close(self) -> None:
        """End the process and release everything; batches still running are failed."""
        self._closed = asyncio.Event()
        if self._restart is not None:
            self._restart.cancel()
        if self._process is not None:
            self._kill("exit")
            await self._closed.wait()
        self._memory.close()

    def _kill(self, why: str) -> None:
        if self._process is not None:
            self._process.kill(why)

    def _take(self, data: bytes) -> None:
        try:
            match wire.unpack(data):
                case wire.Done() as done:
                    self._finish(done)
                case wire.Failed() as failed:
                    self._pop(failed).failed(failed.text)
                case wire.Ready():
                    self.ready = True
                    self.trouble, self._failed_starts = "", 0
                    self._load_next()
                case wire.Loaded() | wire.Refused() as outcome:
                    self._settle(outcome)
                    self._load_next()
            self._on_free()
        except wire.WireError:
            log.exception("the runner of %s sent a broken message", self.target)
            self._kill("broken")

    def _finish(self, done: wire.Done) -> None:
        reach = max((place.offset + place.nbytes for place in done.places), default=0)
        if reach > self._memory.slot_bytes:
            raise wire.WireError(f"outputs end at {reach}, beyond the slot")
        # A prefetched batch waits in its slot until the one before it has run: that is time in the queue, not of input.
        ran_until_ns = self._ran_until_ns
        work = self._pop(done)
        work.sent_ns = max(work.sent_ns, min(ran_until_ns, done.start_ns))
        self._memory.used(done.slot, reach)
        work.session.learn(work.rows, (done.end_ns - done.start_ns) / 1e9)
        work.done(done, self._memory.slots[done.slot])

    def _pop(self, message: wire.Done | wire.Failed) -> Work:
        """Take the batch out of flight. Its slot is refilled by the next dispatch, which comes after this callback."""
        slot, work = self._running.get(message.batch, (-1, None))
        if work is None or slot != message.slot:
            raise wire.WireError(f"no batch {message.batch} is in flight in slot {message.slot}")
        del self._running[message.batch]
        self._ran_until_ns = message.end_ns
        self._free.append(slot)
        self._head_ns = time.monotonic_ns()
        return work

    def _settle(self, outcome: wire.Loaded | wire.Refused) -> None:
        session, self._loading = self._loading, None
        if session is None or session.load.session != outcome.session:
            raise wire.WireError(f"session {outcome.session} was not being opened")
        if isinstance(outcome, wire.Refused):
            self._give_up(session, outcome.text)
        elif session.closed:  # nobody wants it any more
            assert self._process is not None
            self._process.send(wire.pack_body(wire.Unload(outcome.session)))
        else:
            session.ready = True
            session.row_s = session.row_s or outcome.run_s
            if outcome.note:
                log.info("%s: %s", " ".join(session.subject), outcome.note)
            if not session.opened.done():
                session.opened.set_result(outcome)

    def _give_up(self, session: Session, text: str) -> None:
        session.closed = True
        self._sessions.pop(session.load.session, None)
        if not session.opened.done():
            session.opened.set_exception(LoadRefused(text))
            session.opened.exception()  # whoever awaits it sees it; nobody has to

    def _load_next(self) -> None:
        """One at a time: so a death while opening has one suspect, and the socket never fills up."""
        if self.ready and self._loading is None and self._to_load:
            assert self._process is not None
            self._loading = self._to_load.popleft()
            self._load_since = time.monotonic_ns()
            self._process.send(wire.pack_body(self._loading.load))

    def _dead(self, death: Death) -> None:
        """Blame what it was doing, start another."""
        was_ready, self.ready, self._process = self.ready, False, None
        for session in self._sessions.values():
            session.ready = False
        self._blame(death)
        if self._closed is not None:
            self._closed.set()
            return
        log.warning("the runner of %s %s", self.target, death.words)
        self.restarts += 1
        self._on_death(self.target, death.cause)
        self._to_load = deque(sorted(self._sessions.values(), key=lambda session: -session.last_used))
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        if self._failed_starts >= _BROKEN_STARTS:
            self.trouble = f"the runner of {self.target} {death.words} {self._failed_starts} times before it was ready"
        pause = 0.0 if was_ready else min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (self._failed_starts - 1))
        self._restart = asyncio.get_running_loop().call_later(pause, self.start)
        self._on_free()

    def _blame(self, death: Death) -> None:
        """The session being opened is the suspect if there is one, else the oldest batch; the rest are bystanders."""
        loading, self._loading = self._loading, None
        if loading is not None and not loading.closed:
            loading.deaths_at_load += 1
            if loading.deaths_at_load >= 2:
                self._give_up(loading, f"the runner {death.words} while opening it, twice")
        running, self._running = list(self._running.values()), {}
        self._free = list(range(SLOTS))
        for position, (_, work) in enumerate(running):
            error = RunnerDied(f"the process that ran {' '.join(work.session.subject)} {death.words}", death.cause)
            work.died(error, guilty=position == 0 and loading is None)

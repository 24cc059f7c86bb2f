"""The parent's side of one runner process: open sessions in it, feed it batches, start it again when it dies.

A dead runner costs the batches it was running; one that was only prefetched goes back to its queue untouched. A new
process starts at once, or after a growing pause when processes die before they are ready, and reopens the sessions,
most recently used first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from gateway.batching.batch import Item, fill
from gateway.batching.padding import fill_padded
from gateway.errors import RunnerDied
from gateway.running import wire
from gateway.running.blame import SUSPECTED_NS, Part, parts
from gateway.running.in_flight import InFlight, Work
from gateway.running.lingering import Lingering
from gateway.running.loading import Loading
from gateway.running.restarts import Restarts
from gateway.running.runner_process import Death, run_child
from gateway.running.session import Session
from gateway.running.slots import SlotMemory

MOST_INSTANCES = 16
"""Most batches that run at once in one runner, whatever the cores: their slots take address space, no memory."""

log = logging.getLogger("forgeway.runner")


class Process(Protocol):
    """What there is of a runner on this side: a process of ours, or one that another gateway process lends us."""

    @property
    def pid(self) -> int | None: ...

    def send(self, message: bytes) -> None: ...

    def receive_now(self) -> bytes: ...

    def kill(self, why: str) -> None: ...


Connect = Callable[[str, SlotMemory, Callable[[bytes], None], Callable[[Death], None]], Process]
"""(target, slots, on_message, on_death): how a runner is come by."""


class Runner:
    """One child process of one target. `on_free` is called whenever it can take more; `on_death(target, cause)`."""

    def __init__(
        self,
        target: str,
        slot_bytes: int,
        load_timeout_s: float,
        on_free: Callable[[], None],
        on_death: Callable[[str, str], None],
        connect: Connect = run_child,
        crowded_s: float = 0.0,
    ) -> None:
        """`crowded_s`: how long batches of other gateway processes may keep the runner from one of ours."""
        self.target = target
        self.ready = False
        self._restarts = Restarts(f"the runner of {target}")
        self._slots = min(MOST_INSTANCES, len(os.sched_getaffinity(0))) + 1
        self._memory = SlotMemory.create(self._slots, slot_bytes)
        self._on_free = on_free
        self._on_death = on_death
        self._loading = Loading(self._send, load_timeout_s)
        self._flight = InFlight(self._memory, int(crowded_s * 1e9))
        self._lingering = Lingering()
        self._connect = connect
        self._process: Process | None = None
        self._closed: asyncio.Event | None = None
        self._restart: asyncio.TimerHandle | None = None

    @property
    def restarts(self) -> int:
        return self._restarts.count

    @property
    def trouble(self) -> str:
        """Why it cannot start, once several processes died before they were ready."""
        return self._restarts.trouble

    @property
    def slot_bytes(self) -> int:
        return self._memory.slot_bytes

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def has_free_slot(self) -> bool:
        return self.ready and self._flight.has_room

    @property
    def inflight(self) -> int:
        return len(self._flight)

    @property
    def sessions(self) -> tuple[Session, ...]:
        return self._loading.sessions

    def backlog_s(self, now_ns: int) -> float:
        """Seconds until a batch that is sent now would begin, as far as runs take what is expected of them."""
        return self._flight.backlog_s(now_ns)

    def ran_at(self, moment_ns: int) -> bool:
        """Whether a batch ran then, or not long after. For moments that have just been."""
        return self._flight.ran_at(moment_ns)

    def items(self) -> Iterator[Item]:
        """Every item in flight."""
        return (item for work in self._flight for item in work.items)

    def start(self) -> None:
        for slot in range(self._slots):
            self._memory.marks[slot] = 0
        try:
            self._process = self._connect(self.target, self._memory, self._take, self._dead)
        except OSError as exc:  # no process or no descriptor is to be had: perhaps there is in a while
            self._dead(Death("exit", f"could not be started ({exc.strerror})"))

    def load(self, session: Session, first: bool = False) -> None:
        """Open `session`; await `session.opened` for the outcome. `first`: before others that wait to be opened."""
        self._loading.want(session, first)
        if self.ready:
            self._loading.next()

    def unload(self, session: Session) -> None:
        """Close `session` after the batches already sent to it (messages keep their order)."""
        if self._loading.drop(session) and self._process is not None:
            self._send(wire.pack_body(wire.Unload(session.load.session)))

    def dispatch(self, work: Work) -> None:
        """Copy the inputs into a free slot and tell the runner. Only when `has_free_slot`."""
        assert self._process is not None
        slot = self._flight.free.pop()
        work.sent_ns = time.monotonic_ns()
        memory, session = self._memory.slots[slot], work.session
        places, end = fill_padded(memory, work.items, work.padded) if work.padded else fill(memory, work.items)
        number, instances = self._flight.add(slot, work)
        self._memory.used(slot, end)
        session.last_used = work.sent_ns
        self._process.send(wire.pack_run(slot, session.load.session, number, end, places, instances))

    def linger(self) -> None:
        """Wait a moment, on the spot, for the one batch in flight, if it is worth it (lingering.py)."""
        if self._process is None or not self._flight:
            return
        work = next(iter(self._flight))
        if self._lingering.worth_it(work.expected_s) and (data := self._lingering.wait(self._process.receive_now)):
            self._take(data)

    def sweep(self) -> None:
        """Kill a process whose batch, or whose opening of a session, is over its time. Called every few ms."""
        if self._flight.hangs(time.monotonic_ns()) or self._loading.overdue:
            self._kill("hang")

    def trim(self) -> None:
        """Give memory of unusually large batches back. Called about once a second."""
        self._memory.trim(self._flight.free)

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

    def _send(self, message: bytes) -> None:
        assert self._process is not None
        self._process.send(message)

    def _take(self, data: bytes) -> None:
        try:
            match wire.unpack(data):
                case wire.Done() as done:
                    self._finish(done)
                case wire.Failed() as failed:
                    self._flight.pop(failed).failed(failed.text)
                case wire.Ready():
                    self.ready = True
                    self._restarts.ready()
                    self._loading.next()
                case wire.Loaded() | wire.Refused() as outcome:
                    self._loading.settle(outcome)
                    self._loading.next()
            self._on_free()
        except wire.WireError:
            log.exception("the runner of %s sent a broken message", self.target)
            self._kill("broken")

    def _finish(self, done: wire.Done) -> None:
        reach = 0
        for place in done.places:
            # While the batch is in flight somebody looks after it, so what is wrong must be found out now.
            wire.check_place(place, self._memory.slot_bytes)
            reach = max(reach, place.offset + place.nbytes)
        work = self._flight.pop(done)
        self._memory.used(done.slot, reach)
        work.done(done, self._memory.slots[done.slot])

    def _dead(self, death: Death) -> None:
        """Blame what it was doing, start another."""
        was_ready, self.ready, self._process = self.ready, False, None
        self._blame(death)
        if self._closed is not None:
            self._closed.set()
            return
        log.warning("the runner of %s %s", self.target, death.words)
        self._on_death(self.target, death.cause)
        pause_s = self._restarts.died(was_ready, death.words)
        self._restart = asyncio.get_running_loop().call_later(pause_s, self.start)
        self._on_free()

    def _blame(self, death: Death) -> None:
        """The session being opened is the suspect if there is one, else the batches that ran; the rest stood by."""
        works, begun = self._flight.lost()
        begun = 0 if self._loading.died(death.words) else begun
        suspected_until_ns = time.monotonic_ns() + SUSPECTED_NS
        told = parts([work.session.subject for work in works], begun)
        if death.crowded:
            told = [Part.SUSPECT if part is Part.CULPRIT else part for part in told]
        for work, part in zip(works, told, strict=True):
            if part is Part.SUSPECT and Part.CULPRIT not in told:
                work.session.suspected_until_ns = suspected_until_ns
            error = RunnerDied(f"the process that ran {' '.join(work.session.subject)} {death.words}", death.cause)
            work.died(error, part)

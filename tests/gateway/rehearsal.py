"""A batcher rehearsed without processes: small real runners in numpy, on an event loop whose time only jumps.

The loop sleeps for nobody: where nothing is left to do now, its clock moves on to the next timer. So thousands of
schedules take seconds, each goes the same way every time, and a request that would wait for ever is noticed at once:
then there is no next timer.
"""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import replace

import numpy as np

from gateway.batching.batch import fill
from gateway.batching.batcher import Batcher
from gateway.batching.padding import fill_padded
from gateway.errors import RunnerDied
from gateway.routing.health import Health, Subject
from gateway.routing.ranking import VersionRoute, rank
from gateway.running import wire
from gateway.running.blame import parts
from gateway.running.session import Session
from gateway.running.wire import Done, Place
from gateway.statistics import Statistics
from gateway.tensors import Checked
from model_store.entities import Signature, TensorSpec
from tests.gateway.engines import tensor, variant

SLOT = 1 << 16
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))
RESTART_S = 0.03


class Jumps(selectors.SelectSelector):
    """Waits by moving its clock on."""

    def __init__(self):
        super().__init__()
        self.now, self.turns = 0.0, 0

    def select(self, timeout=None):
        self.turns += 1
        if timeout is None:
            raise AssertionError("somebody waits for ever: nothing is going to happen any more")
        if self.turns > 200_000:
            raise AssertionError(f"the loop turns without end, at {self.now:.3f} s")
        self.now += max(0.0, timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._jumps, self.asked = Jumps(), 0
        super().__init__(self._jumps)

    def time(self):
        return self._jumps.now


def rehearse(test):
    """Run a coroutine function on a jumping loop; whatever goes wrong in a callback goes wrong here."""
    wrong = []
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(lambda loop, context: wrong.append(context.get("exception") or context["message"]))
        try:
            return runner.run(test())
        except BaseException as exc:
            if wrong and isinstance(wrong[0], BaseException):
                raise wrong[0] from exc
            raise
        finally:
            assert not wrong, wrong


def now_ns():
    """The time in nanoseconds; asking takes one, as no two requests come at the same time."""
    loop = asyncio.get_running_loop()
    loop.asked += 1
    return 1_000_000_000 + round(loop.time() * 1e9) + loop.asked


class NumpySession(Session):
    """Open from the start, in no process."""

    def __init__(self, name, target):
        subject = Subject("m", "1", name)
        super().__init__(subject, wire.Load(0, {}, {}, 1, (), ()), target)
        self.ready = True


class NumpyRunner:
    """`instances` batches at a time and one more in a slot; y = x + 1 after `delay(work)` seconds.

    `fate(work)` is done, failed or died. A death costs what it runs, and a moment until it is ready again.
    """

    trouble = ""
    slot_bytes = SLOT

    def __init__(self, fate, delay, pump, instances=1):
        self._fate, self._delay, self._pump = fate, delay, pump
        self._instances = instances
        self._flying, self._running, self._ended_ns = [], 0, 0
        self.ready, self.sessions = True, []
        self.batches, self.sent, self.padded = [], [], []

    @property
    def inflight(self):
        return len(self._flying)

    @property
    def has_free_slot(self):
        return self.ready and len(self._flying) <= self._instances

    def backlog_s(self, now):
        if len(self._flying) < self._instances:
            return 0.0
        return sum(work.expected_s for work, *_ in self._flying) / self._instances

    def ran_at(self, moment_ns):
        return self._ended_ns >= moment_ns or self._running > 0

    def items(self):
        return [item for work, *_ in self._flying for item in work.items]

    def dispatch(self, work):
        assert self.has_free_slot
        slot = memoryview(bytearray(SLOT))
        places, end = fill_padded(slot, work.items, work.padded) if work.padded else fill(slot, work.items)
        self.batches.append([item.rows for item in work.items])
        self.sent.append(list(work.items))
        self.padded.append(work.padded)
        work.sent_ns = now_ns()
        self._flying.append((work, slot, places, end))
        self._start()

    def _start(self):
        while self._running < min(self._instances, len(self._flying)):
            flight = self._flying[self._running]
            self._running += 1
            asyncio.get_running_loop().call_later(self._delay(flight[0]), self._finish, flight, now_ns())

    def _finish(self, flight, start_ns):
        if flight not in self._flying:
            return  # the process died under it
        work, slot, (place,), end = flight
        fate = self._fate(work)
        if fate == "died":
            self._die()
        else:
            self._flying.remove(flight)
            self._running -= 1
            self._ended_ns = now_ns()
            if fate == "failed":
                work.failed("no")
            else:
                x = np.frombuffer(slot, np.float32, place.nbytes // 4, place.offset).reshape(place.shape)
                y = np.frombuffer(slot, np.float32, x.size, end).reshape(x.shape)
                y[...] = x + 1
                done = Done(0, 1, 1, start_ns, now_ns(), (Place(0, "FP32", place.shape, end, place.nbytes),))
                work.done(done, slot)
            self._start()
        self._pump()

    def _die(self):
        flying, running = [work for work, *_ in self._flying], self._running
        self._flying, self._running, self.ready = [], 0, False
        for session in self.sessions:
            session.ready = False
        for work, part in zip(flying, parts([work.session.subject for work in flying], running), strict=True):
            work.died(RunnerDied("it died", "segv"), part)
        asyncio.get_running_loop().call_later(RESTART_S, self._again)

    def _again(self):
        self.ready = True
        for session in self.sessions:
            session.ready = True
        self._pump()


class Rehearsal:
    """A batcher with its runners and a pump, as gateway/running/runners.py has them for many.

    `variants` beside the reference, whose target is `home`; each lives in the runner of its target. `plan`: fields of
    everybody's plan.
    """

    def __init__(self, fate=None, delay=None, max_rows=16, variants=(), plan=None, instances=1, home="here"):
        self.health, self.statistics = Health(lambda: asyncio.get_running_loop().time()), Statistics()
        every = {v.id: v for v in (variant("m", target=home), *variants)}
        every = {name: replace(v, plan=replace(v.plan, max_rows=max_rows, **(plan or {}))) for name, v in every.items()}
        buckets, ranked = rank(every.values(), False)
        self.runners = {
            target: NumpyRunner(fate or (lambda work: "done"), delay or (lambda work: 0.0), self.soon, instances)
            for target in dict.fromkeys(v.target for v in every.values())
        }
        sessions = {}
        for name, v in every.items():
            sessions[name] = NumpySession(name, v.target)
            self.runners[v.target].sessions.append(sessions[name])
        self.route = VersionRoute("m", "1", SIGNATURE, every, buckets, ranked).opened(sessions)
        self.runner = self.runners[home]
        self.batcher = Batcher(
            self.route, self.health, self.runners.get, lambda batcher, fresh: self.soon(), self.statistics, now_ns
        )
        self._soon = False

    def soon(self):
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self):
        self._soon = False
        while any(runner.has_free_slot for runner in self.runners.values()) and self.batcher.dispatch():
            pass

    def submit(self, x, timeout_s=5.0, pin=None, gone=None, priority=0):
        checked = Checked((tensor(x),), len(x), x.nbytes, (x.shape[1:],))
        return self.batcher.submit(checked, now_ns() + int(timeout_s * 1e9), pin, gone, priority)


def rows(n, value, width=4):
    return np.full((n, width), value, np.float32)

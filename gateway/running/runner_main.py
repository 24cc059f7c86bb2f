"""The runner: a child process that owns Sessions of one target, started by `python -m gateway.running.runner_main`.

It inherits two file descriptors, which make its first channel (channel.py): a SEQPACKET socket and the memory
of its slots. Messages are taken in order, by one thread at a time; a thread that took a batch runs it, and where a plan
has several instances another one takes the next (instances.py). No batch is ever handed from thread to thread.
One more thread opens and warms sessions, so that serving goes on while a new variant loads. The runner ends when its
gateway does (first socket closed, or PDEATHSIG). Further channels are those of gateway processes beside it: they come
and go, and share its sessions (sharing.py).

Only numpy and one target are imported here: this is the only kind of process that holds a native runtime for serving,
and it can reach no network (model_store.sandbox).
"""

from __future__ import annotations

import argparse
import os
import queue
import resource
import socket
import threading
import time

from compilers.memory import give_back_free_blocks
from compilers.targets import Target, load_target
from gateway.running import wire
from gateway.running.channel import Channel, Channels
from gateway.running.instances import Crew, Gate
from gateway.running.sharing import Shared
from gateway.running.slot_tensors import read_tensor, write_tensors
from gateway.running.slots import SlotMemory
from gateway.running.warming import Opened, open_variant, words
from model_store.sandbox import Limits, confine


class Runner:
    """Takes messages until its first channel closes."""

    def __init__(self, target: Target, first: Channel, door: socket.socket | None = None) -> None:
        self._target = target
        self._first = first
        self._channels = Channels(first, door, self._greet)
        self._turn = threading.Lock()
        self._gate = Gate()
        self._crew = Crew(self._work)
        self._shared = Shared()
        self._chores: queue.SimpleQueue[tuple[Channel, wire.Load] | Opened | None] = queue.SimpleQueue()

    def serve(self) -> None:
        loader = threading.Thread(target=self._do_chores, daemon=True, name="loader")
        loader.start()
        self._greet(self._first)
        self._work()

    def _greet(self, channel: Channel) -> None:
        channel.send(wire.pack_body(wire.Ready(os.getpid())))

    def _work(self) -> None:
        """What every thread of the crew does: wait for its turn, take a batch, let the next one wait, run it."""
        while True:
            with self._turn:
                taken = self._take()
            if taken is None:
                return
            channel, run = taken
            channel.send(self._run(channel, run))
            # Only now may the next one begin: the gateway blames a crash on the oldest batches it has no answer of.
            self._gate.leave(run.instances)

    def _take(self) -> tuple[Channel, wire.Run] | None:
        """The next batch, as soon as it may begin; what comes before it is seen to. None: the gateway has gone."""
        while True:
            channel, data = self._channels.next(self._gate.idle)
            if not data:
                if channel is self._first:
                    return None
                self._part_with(channel)
                continue
            match wire.unpack(data):
                case wire.Run() as run:
                    self._gate.enter(run.instances)
                    return channel, run
                case wire.Load() as load:
                    self._chores.put((channel, load))
                case wire.Unload(session=number):
                    # Messages come in order, so every batch of this session has begun: now it also has ended.
                    self._gate.wait_idle()
                    self._chores.put(self._shared.release(channel, number))
                    channel.send(wire.pack_body(wire.Unloaded(number)))
                case other:
                    raise wire.WireError(f"a {type(other).__name__} message is not for a runner")

    def _part_with(self, channel: Channel) -> None:
        """A gateway process has gone: nobody waits for what it asked for."""
        self._gate.wait_idle()
        for opened in self._shared.leave(channel):
            self._chores.put(opened)
        self._channels.remove(channel)

    def _run(self, channel: Channel, run: wire.Run) -> bytes:
        marks = channel.memory.marks
        start = end = marks[run.slot] = time.monotonic_ns()
        try:
            opened = channel.sessions[run.session]
            view = channel.memory.slots[run.slot]
            inputs = {opened.inputs[place.nth]: read_tensor(view, place) for place in run.places}
            start = time.monotonic_ns()
            outputs = opened.session.run(inputs)
            end = time.monotonic_ns()
            places = write_tensors(view, run.free, opened.outputs, outputs)
            return wire.pack_done(run.slot, run.session, run.batch, start, end, places)
        except Exception as exc:  # an exception is an answer, too: only what kills the process may cost more than it
            return wire.pack_failed(run.slot, run.session, run.batch, start, time.monotonic_ns(), words(exc))
        finally:
            marks[run.slot] = -marks[run.slot]

    def _do_chores(self) -> None:
        while True:
            match self._chores.get():
                case (Channel() as channel, wire.Load() as load):
                    channel.send(wire.pack_body(self._open(channel, load)))
                case Opened() as opened:
                    opened.session.close()
                    del opened
                    give_back_free_blocks()

    def _open(self, channel: Channel, load: wire.Load) -> wire.Loaded | wire.Refused:
        if (joined := self._shared.join(channel, load)) is not None:
            return joined
        started = time.monotonic()
        try:
            opened, run_s, note = open_variant(self._target, load)
        except Exception as exc:  # whatever a runtime raises here must reach the gateway as words, not end the runner
            return wire.Refused(load.session, words(exc))
        self._crew.grow(load.instances)
        if not self._shared.add(channel, load, opened, run_s):
            opened.session.close()
        return wire.Loaded(load.session, time.monotonic() - started, run_s, note)


def main() -> None:
    parser = argparse.ArgumentParser(prog="gateway.running.runner_main", description="serve sessions of one target")
    parser.add_argument("--target", required=True)
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the SEQPACKET socket")
    parser.add_argument("--memory", type=int, required=True, help="file descriptor of the slots")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--slot-bytes", type=int, required=True)
    parser.add_argument("--door", type=int, help="file descriptor through which further channels are handed over")
    args = parser.parse_args()
    # It writes no file and starts no process. Its memory is bounded from outside (a cgroup): runtimes reserve far more
    # address space than they use.
    unlimited = resource.RLIM_INFINITY
    confine(Limits(memory_bytes=unlimited, file_bytes=unlimited, nice=0, processes=0, writable=()))
    first = Channel(socket.socket(fileno=args.control), SlotMemory(args.memory, args.slots, args.slot_bytes))
    door = None if args.door is None else socket.socket(fileno=args.door)
    Runner(load_target(args.target), first, door).serve()


if __name__ == "__main__":
    main()

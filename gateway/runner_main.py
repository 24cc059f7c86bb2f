"""The runner: a child process that owns Sessions of one target. `python -m gateway.runner_main` is all it takes.

It inherits two file descriptors: a SEQPACKET socket (gateway/wire.py) and the memory of its slots (gateway/slots.py).
The main thread takes messages in order and runs batches; a second thread opens and warms sessions, so that serving
goes on while a new variant loads. It ends when the gateway does (socket closed, or PDEATHSIG).

Only numpy and one target are imported here: this is the only kind of process that holds a native runtime for serving,
and it can reach no network (model_store.sandbox).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import queue
import resource
import socket
import threading
import time
from math import prod
from pathlib import Path

import numpy as np

from compilers.targets import Session, Target, TargetFailed, Tensors, load_target
from gateway import wire
from gateway.slots import SlotMemory, aligned
from model_store.datatypes import numpy_dtype, v2_name
from model_store.sandbox import Limits, confine

POLL_NS, QUICK_NS = 300_000, 500_000
"""How long the next batch is polled for, and how soon it must have come the last time for polling to be worth it."""

_SECOND_WARM_RUN_S = 0.05
"""A warm run slower than this is not repeated just to learn its steady time."""


class Opened:
    """A session and the names and types that its tensors go by, in signature order."""

    def __init__(self, session: Session, load: wire.Load) -> None:
        self.session = session
        self.inputs = [spec.name for spec in load.inputs]
        self.outputs = [(index, spec.name, spec.datatype) for index, spec in enumerate(load.outputs)]


class Runner:
    """Takes messages until the socket closes."""

    def __init__(self, target: Target, control: socket.socket, memory: SlotMemory) -> None:
        self._target = target
        self._control = control
        self._memory = memory
        self._quick = False
        self._sessions: dict[int, Opened] = {}
        self._chores: queue.SimpleQueue[wire.Load | Opened | None] = queue.SimpleQueue()

    def serve(self) -> None:
        loader = threading.Thread(target=self._do_chores, daemon=True, name="loader")
        loader.start()
        self._send(wire.pack_body(wire.Ready(os.getpid())))
        while data := self._next():
            match wire.unpack(data):
                case wire.Run() as run:
                    self._send(self._run(run))
                case wire.Load() as load:
                    self._chores.put(load)
                case wire.Unload(session=number):
                    # Messages come in order, so every RUN of this session is behind us.
                    self._chores.put(self._sessions.pop(number, None))
                    self._send(wire.pack_body(wire.Unloaded(number)))
                case other:
                    raise wire.WireError(f"a {type(other).__name__} message is not for a runner")

    def _next(self) -> bytes:
        """The next message; nothing when the gateway has gone.

        Under quick traffic the socket is asked again and again for a moment before sleeping: to wake a sleeping
        process takes longer than such a wait, above all in a virtual machine. A runner without work sleeps.
        """
        since = time.monotonic_ns()
        if self._quick:
            while time.monotonic_ns() - since < POLL_NS:
                try:
                    return self._control.recv(wire.MAX_MESSAGE, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    os.sched_yield()
        data = self._control.recv(wire.MAX_MESSAGE)
        self._quick = time.monotonic_ns() - since < QUICK_NS
        return data

    def _run(self, run: wire.Run) -> bytes:
        start = end = time.monotonic_ns()
        try:
            opened = self._sessions[run.session]
            view = self._memory.slots[run.slot]
            inputs = {opened.inputs[place.nth]: read_tensor(view, place) for place in run.places}
            start = time.monotonic_ns()
            outputs = opened.session.run(inputs)
            end = time.monotonic_ns()
            places = write_tensors(view, run.free, opened, outputs)
            return wire.pack_done(run.slot, run.session, run.batch, start, end, places)
        except Exception as exc:  # an exception is an answer, too: only what kills the process may cost more than it
            return wire.pack_failed(run.slot, run.session, run.batch, start, time.monotonic_ns(), _words(exc))

    def _do_chores(self) -> None:
        while True:
            match self._chores.get():
                case wire.Load() as load:
                    self._send(wire.pack_body(self._open(load)))
                case Opened() as opened:
                    opened.session.close()
                    del opened
                    _give_memory_back()

    def _open(self, load: wire.Load) -> wire.Loaded | wire.Refused:
        started = time.monotonic()
        try:
            files = {name: Path(path) for name, path in load.files.items()}
            session = self._target.open(files, load.options, load.threads)
        except Exception as exc:  # whatever a runtime raises here must reach the gateway as words, not end the runner
            return wire.Refused(load.session, _words(exc))
        run_s, note = None, ""
        for rows in load.warm:
            try:
                seconds = _warm(session, load, rows)
            except (TargetFailed, ValueError, KeyError, MemoryError) as exc:
                note = f"warm-up with {rows} rows of zeros: {_words(exc)}"
                break
            run_s = seconds if rows == 1 else run_s
        self._sessions[load.session] = Opened(session, load)
        return wire.Loaded(load.session, time.monotonic() - started, run_s, note)

    def _send(self, message: bytes) -> None:
        self._control.send(message)


def read_tensor(view: memoryview, place: wire.Place) -> np.ndarray:
    """The tensor at `place`, without a copy (BYTES excepted: an object array of bytes). Raises WireError."""
    wire.check_place(place, len(view))
    if place.datatype == "BYTES":
        return _read_texts(view[place.offset : place.offset + place.nbytes], place)
    dtype = numpy_dtype(place.datatype)
    return np.frombuffer(view, dtype, prod(place.shape), place.offset).reshape(place.shape)


def write_tensors(view: memoryview, free: int, opened: Opened, outputs: Tensors) -> list[wire.Place]:
    """Copy every output into the slot from `free` on. Raises ValueError when they do not fit, KeyError if one lacks."""
    places = []
    offset = free
    for index, name, datatype in opened.outputs:
        array = outputs[name]
        offset = aligned(offset)
        if datatype == "BYTES":
            data: np.ndarray = np.frombuffer(_texts(array), np.uint8)
        else:
            if v2_name(array.dtype) != datatype:
                array = array.astype(numpy_dtype(datatype))
            data = array
        if offset + data.nbytes > len(view):
            raise ValueError(f"the batch needs {offset + data.nbytes} bytes, a slot has {len(view)} (slot_bytes)")
        np.copyto(np.frombuffer(view, data.dtype, data.size, offset).reshape(data.shape), data)
        places.append(wire.Place(index, datatype, array.shape, offset, data.nbytes))
        offset += data.nbytes
    return places


def _read_texts(data: memoryview, place: wire.Place) -> np.ndarray:
    count, at = prod(place.shape), 0
    texts = np.empty(count, dtype=object)
    for i in range(count):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + length > len(data):
            raise wire.WireError(f"tensor {place.nth}: element {i} reaches beyond its {len(data)} bytes")
        texts[i] = bytes(data[at + 4 : at + 4 + length])
        at += 4 + length
    return texts.reshape(place.shape)


def _texts(array: np.ndarray) -> bytes:
    parts = []
    for item in array.ravel().tolist():
        text = item if isinstance(item, bytes) else str(item).encode()
        parts += [len(text).to_bytes(4, "little"), text]
    return b"".join(parts)


def _warm(session: Session, load: wire.Load, rows: int) -> float:
    """Seconds of a run with zeros: `rows` on a dynamic first axis, 1 on other dynamic axes."""
    inputs = {}
    for spec in load.inputs:
        shape = tuple((rows if axis == 0 else 1) if size < 0 else size for axis, size in enumerate(spec.shape))
        inputs[spec.name] = np.full(shape, b"", dtype=object) if spec.datatype == "BYTES" else _zeros(shape, spec)
    seconds = 0.0
    for _ in range(2):
        started = time.monotonic()
        session.run(inputs)
        seconds = time.monotonic() - started
        if seconds > _SECOND_WARM_RUN_S:
            break
    return seconds


def _zeros(shape: tuple[int, ...], spec: wire.WarmInput) -> np.ndarray:
    return np.zeros(shape, numpy_dtype(spec.datatype))


def _words(exc: BaseException) -> str:
    return str(exc).strip() or type(exc).__name__


def _give_memory_back() -> None:
    """Closed sessions leave their arenas in malloc's hands; glibc keeps them unless asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="gateway.runner_main", description="serve sessions of one target")
    parser.add_argument("--target", required=True)
    parser.add_argument("--control", type=int, required=True, help="file descriptor of the SEQPACKET socket")
    parser.add_argument("--memory", type=int, required=True, help="file descriptor of the slots")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--slot-bytes", type=int, required=True)
    args = parser.parse_args()
    # It writes no file and starts no process. Its memory is bounded from outside (a cgroup): runtimes reserve far more
    # address space than they use.
    unlimited = resource.RLIM_INFINITY
    confine(Limits(memory_bytes=unlimited, file_bytes=unlimited, nice=0, processes=0, writable=()))
    control = socket.socket(fileno=args.control)
    memory = SlotMemory(args.memory, args.slots, args.slot_bytes)
    Runner(load_target(args.target), control, memory).serve()


if __name__ == "__main__":
    main()

"""Where a runner's messages come from: channels, each one gateway's socket and the memory of its slots.

While there is one, waiting for it is a plain blocking receive; several are waited for together and served in turns.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from gateway import wire
from gateway.slots import SlotMemory

POLL_NS, QUICK_NS = 300_000, 500_000
"""How long the next message is polled for, and how soon it must have come the last time for polling to be worth it."""


class Channel(NamedTuple):
    """A SEQPACKET socket (gateway/wire.py) and the slots that its batches lie in (gateway/slots.py)."""

    control: socket.socket
    memory: SlotMemory

    def send(self, message: bytes) -> None:
        self.control.send(message)


class Channels:
    """The channels of this runner. One thread at a time may ask for the next message."""

    def __init__(self, first: Channel) -> None:
        self._all: dict[int, Channel] = {}
        self._only: Channel | None = None
        self._poll = select.poll()
        self._due: deque[Channel] = deque()
        self._quick = False
        self.add(first)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, channel: Channel) -> None:
        fd = channel.control.fileno()
        self._all[fd] = channel
        self._poll.register(fd, select.POLLIN)
        self._only = channel if len(self._all) == 1 else None

    def remove(self, channel: Channel) -> None:
        """Forget it; the socket and the memory are the caller's to close."""
        fd = channel.control.fileno()
        self._poll.unregister(fd)
        del self._all[fd]
        self._due = deque(other for other in self._due if other is not channel)
        self._only = next(iter(self._all.values())) if len(self._all) == 1 else None

    def next(self, resting: Callable[[], bool] = lambda: True) -> tuple[Channel, bytes]:
        """The next message and where it came from; no bytes when that gateway has gone.

        Under quick traffic the sockets are asked again and again for a moment before sleeping: to wake a sleeping
        process takes longer than such a wait, above all in a virtual machine. That stops as soon as `resting` is
        false: another thread has use for the core. A runner without work sleeps.
        """
        since = time.monotonic_ns()
        if self._quick:
            while time.monotonic_ns() - since < POLL_NS:
                try:
                    return self._receive(socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if not resting():
                        break
                    os.sched_yield()
        found = self._receive(0)
        self._quick = time.monotonic_ns() - since < QUICK_NS
        return found

    def _receive(self, flags: int) -> tuple[Channel, bytes]:
        """Raises BlockingIOError when nothing is there and `flags` say not to wait."""
        only = self._only
        if only is not None:
            return only, only.control.recv(wire.MAX_MESSAGE, flags)
        if not self._due:
            self._look(0 if flags else None)
        if not self._due:
            raise BlockingIOError
        channel = self._due.popleft()
        return channel, channel.control.recv(wire.MAX_MESSAGE, flags)

    def _look(self, timeout_ms: int | None) -> None:
        """Whoever has something to say is due once, before anybody is due twice."""
        self._due.extend(self._all[fd] for fd, _ in self._poll.poll(timeout_ms))

"""Where a runner's messages come from: channels, each one gateway's socket and the memory of its slots.

While there is one, waiting for it is a plain blocking receive; several are waited for together and served in turns.
Further ones come through the door: a socket on which the gateway that started the runner hands descriptors over, for
gateway processes beside it (gateway/fronts).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.running import wire
from gateway.running.slots import SlotMemory

POLL_NS = QUICK_NS = 500_000
"""How long the next message is polled for, and how soon it must have come the last time for polling to be worth it."""


if TYPE_CHECKING:
    from gateway.running.warming import Opened

ATTACH = struct.Struct("<IQ")
"""What is said when a channel is handed over, with its socket and its memory: slots, bytes of each."""


class Channel:
    """A SEQPACKET socket (wire.py) and the slots that its batches lie in (slots.py)."""

    def __init__(self, control: socket.socket, memory: SlotMemory) -> None:
        self.control = control
        self.memory = memory
        self.sessions: dict[int, Opened] = {}
        """What its gateway has open, by the numbers that it gave."""
        self.gone = False

    def send(self, message: bytes) -> None:
        """To a gateway that has gone nothing is said: that it has, its socket says."""
        try:
            self.control.send(message)
        except ConnectionError:
            pass
        except OSError:
            if not self.gone:
                raise


class Channels:
    """The channels of this runner. One thread at a time may ask for the next message.

    `door`: where further ones are handed over, if they may be; `on_new` is told of each.
    """

    def __init__(
        self, first: Channel, door: socket.socket | None = None, on_new: Callable[[Channel], None] = lambda _: None
    ) -> None:
        self._all: dict[int, Channel] = {}
        self._only: Channel | None = None
        self._poll = select.poll()
        self._due: deque[Channel] = deque()
        self._quick = False
        self._door = door
        self._on_new = on_new
        if door is not None:
            self._poll.register(door.fileno(), select.POLLIN)
        self.add(first)

    def __len__(self) -> int:
        return len(self._all)

    def add(self, channel: Channel) -> None:
        fd = channel.control.fileno()
        self._all[fd] = channel
        self._poll.register(fd, select.POLLIN)
        self._only = channel if len(self._all) == 1 and self._door is None else None

    def remove(self, channel: Channel) -> None:
        """Forget it. Its memory goes with whatever still looks at it."""
        fd = channel.control.fileno()
        self._poll.unregister(fd)
        del self._all[fd]
        self._due = deque(other for other in self._due if other is not channel)
        self._only = next(iter(self._all.values())) if len(self._all) == 1 and self._door is None else None
        channel.control.close()
        os.close(channel.memory.fd)

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
            return only, wire.receive(only.control, flags)
        while not self._due:
            self._look(0 if flags else None)
            if flags and not self._due:
                raise BlockingIOError
        channel = self._due.popleft()
        return channel, wire.receive(channel.control, flags)

    def _look(self, timeout_ms: int | None) -> None:
        """Whoever has something to say is due once, before anybody is due twice."""
        for fd, _ in self._poll.poll(timeout_ms):
            if fd in self._all:
                self._due.append(self._all[fd])
            else:
                self._admit()

    def _admit(self) -> None:
        assert self._door is not None
        said, fds, _, _ = socket.recv_fds(self._door, ATTACH.size, 2)
        if not said:  # that the gateway has gone, its own channel says
            self._poll.unregister(self._door.fileno())
            return
        slots, slot_bytes = ATTACH.unpack(said)
        channel = Channel(socket.socket(fileno=fds[0]), SlotMemory(fds[1], slots, slot_bytes))
        self.add(channel)
        self._on_new(channel)

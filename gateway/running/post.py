"""Our end of a channel to a runner: messages out, now or as soon as the socket takes them, and messages in."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from gateway.running import wire


class Post:
    """A SEQPACKET socket (wire.py), heard through the event loop. It is this object's to close."""

    def __init__(self, ours: socket.socket, on_message: Callable[[bytes], None]) -> None:
        ours.setblocking(False)
        self._socket = ours
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._outbox: deque[bytes] = deque()
        self._loop.add_reader(ours.fileno(), self._readable)

    def send(self, message: bytes) -> None:
        """Send now, or as soon as the socket takes it; messages keep their order."""
        if not self._outbox:
            try:
                self._socket.send(message)
                return
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._writable)
            except ConnectionError:
                return  # the runner is dead; whoever watches it is about to say so
        self._outbox.append(message)

    def receive_now(self) -> bytes:
        """The next message if it is there, else nothing. What it means for a closed socket the loop finds out."""
        try:
            return wire.receive(self._socket)
        except BlockingIOError:
            return b""

    def end(self) -> None:
        """The runner is dead: take what it said before, then close."""
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        while data := self.receive_now():
            self._on_message(data)
        self._socket.close()

    def _readable(self) -> None:
        try:
            data = wire.receive(self._socket)
        except BlockingIOError:
            return
        if data:
            self._on_message(data)
        else:
            # Closed by the other end: its death tells the rest. A socket at its end would be readable for ever.
            self._loop.remove_reader(self._socket.fileno())

    def _writable(self) -> None:
        try:
            while self._outbox:
                self._socket.send(self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            return
        except ConnectionError:
            self._outbox.clear()
        self._loop.remove_writer(self._socket.fileno())

"""The door: how many predictions, and how many bytes of them, are inside at once. What is over is refused at once.

A refusal now beats a timeout later: it costs nothing, and `Retry-After` says when to come again.
"""

from __future__ import annotations

from gateway.errors import Draining, Overloaded


class Admission:
    """Counts what is inside. `enter` and `leave` come in pairs."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self.limit = limit
        self.max_bytes = max_bytes
        self.inflight = 0
        self.entered = 0
        """All that ever were let in."""
        self.bytes = 0
        self.draining = False

    def enter(self, nbytes: int) -> None:
        """Raises Draining, or Overloaded when the house is full."""
        if self.draining:
            raise Draining
        if self.inflight >= self.limit:
            raise Overloaded(f"Exceeds maximum queue size: {self.limit} requests are in flight")
        if self.bytes + nbytes > self.max_bytes and self.inflight:
            raise Overloaded(f"requests in flight hold {self.bytes} bytes; the limit is {self.max_bytes}", "memory")
        self.inflight += 1
        self.entered += 1
        self.bytes += nbytes

    def leave(self, nbytes: int) -> None:
        self.inflight -= 1
        self.bytes -= nbytes

"""Whether requests are answered beside this worker: what its gateway tells it, and what compiling owes to that.

The gateway writes a byte for every change (gateway/compiling.py). A worker that runs alone is told nothing.
"""

from __future__ import annotations

import os
import threading
import time

FLOWS, RESTS = b"1", b"0"

SLOWED = 2.0
"""How many times longer compiling may take on half of the cores: so much slower runs the clock of its budget."""


class Traffic:
    """`flows`: whether requests are being answered; None where nobody says."""

    def __init__(self, flows: bool | None = None) -> None:
        self.flows = flows
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._flowed_s = 0.0

    def told(self, flows: bool | None) -> None:
        with self._lock:
            now = time.monotonic()
            if self.flows:
                self._flowed_s += now - self._since
            self.flows, self._since = flows, now

    def clock(self) -> float:
        """Monotonic seconds for what a budget grants: while requests flow, they pass `SLOWED` times slower."""
        with self._lock:
            now = time.monotonic()
            flowed_s = self._flowed_s + (now - self._since if self.flows else 0.0)
            return now - flowed_s * (1 - 1 / SLOWED)

    def listen(self, descriptor: int) -> threading.Thread:
        """Hear what comes on a pipe from now on. When it ends nobody says any more."""

        def hear() -> None:
            while said := os.read(descriptor, 64):
                self.told(said.endswith(FLOWS))
            self.told(None)

        thread = threading.Thread(target=hear, name="traffic", daemon=True)
        thread.start()
        return thread

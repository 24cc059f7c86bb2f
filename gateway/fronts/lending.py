"""The primary's runners, lent to the fronts: each front has a channel of its own into the same process.

A loan is wanted by a front, then handed to the process there is, or to the next one, and ends with that process. The
front's slots are remembered while it lasts, since they say which of its batches had begun when the runner died.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gateway.fronts.link import Link
from gateway.running.channel import ATTACH
from gateway.running.runner_process import Death, RunnerProcess, run_child
from gateway.running.slots import SlotMemory, begun_in


class Loan:
    """One channel of one front. `fds` (socket, slots) are this object's to close."""

    def __init__(self, link: Link, number: int, target: str, slots: int, slot_bytes: int, fds: list[int]) -> None:
        self.link = link
        self.number = number
        self.target = target
        self._slots = slots
        self._slot_bytes = slot_bytes
        self._fds = fds
        self.lender: _Lender | None = None
        """The process it was handed to; None while there is none."""

    def hand(self, lender: _Lender) -> None:
        self.lender = lender
        with suppress(OSError):  # it has just died: that is about to be told
            socket.send_fds(lender.door, [ATTACH.pack(self._slots, self._slot_bytes)], self._fds)
        os.close(self._fds.pop(0))

    def has_begun(self) -> bool:
        """Whether a batch of it runs, or ran when the process died."""
        return begun_in(self._fds[-1], self._slots, self._slot_bytes)

    def end(self, death: Death | None, crowded: bool) -> None:
        if death is not None:
            self.link.tell("died", number=self.number, cause=death.cause, words=death.words, crowded=crowded)
        for fd in self._fds:
            os.close(fd)
        self._fds = []


class _Lender:
    """A running process and the socket through which it is handed channels."""

    def __init__(self, process: RunnerProcess, door: socket.socket) -> None:
        self.process = process
        self.door = door


class Lending:
    """Starts runners that can be shared, and keeps the loans. `needed(target)` sees to it that there is a runner."""

    def __init__(self) -> None:
        self.needed: Callable[[str], Any] = lambda target: None
        self._lenders: dict[str, _Lender] = {}
        self._loans: list[Loan] = []

    def connect(
        self,
        target: str,
        memory: SlotMemory,
        on_message: Callable[[bytes], None],
        on_death: Callable[[Death], None],
    ) -> RunnerProcess:
        """Start the runner of `target`, and hand it whatever fronts wait for it."""
        door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def over(death: Death) -> None:
            on_death(death._replace(crowded=self._over(target, lender, memory, death)))

        with theirs:
            lender = _Lender(run_child(target, memory, on_message, over, theirs.fileno()), door)
        self._lenders[target] = lender
        for loan in self._loans:
            if loan.target == target:
                loan.hand(lender)
        return lender.process

    def lend(self, link: Link, number: int, target: str, slots: int, slot_bytes: int, fds: list[int]) -> None:
        """A front wants a channel (a verb of its link)."""
        loan = Loan(link, number, target, slots, slot_bytes, fds)
        self._loans.append(loan)
        lender = self._lenders.get(target)
        if lender is not None:
            loan.hand(lender)
        else:
            self.needed(target)

    def kill(self, link: Link, number: int, why: str) -> None:
        """A front says that its runner hangs or talks nonsense, or gives it back (a verb of its link)."""
        for loan in [loan for loan in self._loans if loan.link is link and loan.number == number]:
            if why == "exit":
                self._forget(loan)
            elif loan.lender is not None:
                loan.lender.process.kill(why)

    def left(self, link: Link) -> None:
        """A front has gone: its runners are told by the end of their channels."""
        for loan in [loan for loan in self._loans if loan.link is link]:
            self._forget(loan)

    def _forget(self, loan: Loan) -> None:
        self._loans.remove(loan)
        loan.end(None, False)

    def _over(self, target: str, lender: _Lender, memory: SlotMemory, death: Death) -> bool:
        """Tell whom it was lent to. Whether batches of more than one process ran when it died."""
        del self._lenders[target]
        lender.door.close()
        ended = [loan for loan in self._loans if loan.lender is lender]
        own = begun_in(memory.fd, memory.count, memory.slot_bytes)
        crowded = own + sum(loan.has_begun() for loan in ended) > 1
        for loan in ended:
            self._loans.remove(loan)
            loan.end(death, crowded)
        return crowded

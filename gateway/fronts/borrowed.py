"""A runner as a front has it: a channel of its own into a process that belongs to the primary.

The front makes the channel (socket and slots) and the primary hands it to the runner. That the runner died, and how,
is the primary's to say; that it hangs, either may say.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable

from gateway.fronts.link import Link
from gateway.running.post import Post
from gateway.running.runner_process import Death
from gateway.running.slots import SlotMemory


class Borrowed:
    """What RunnerProcess is to the primary. `number` names the loan between this front and the primary."""

    pid = None

    def __init__(
        self,
        link: Link,
        number: int,
        target: str,
        memory: SlotMemory,
        on_message: Callable[[bytes], None],
        on_death: Callable[[Death], None],
    ) -> None:
        self._link = link
        self._number = number
        self._on_death = on_death
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            link.tell(
                "lend", [theirs.fileno(), memory.fd],
                number=number, target=target, slots=memory.count, slot_bytes=memory.slot_bytes,
            )  # fmt: skip
        self._post = Post(ours, on_message)
        self.send, self.receive_now = self._post.send, self._post.receive_now

    def kill(self, why: str) -> None:
        """Have the primary kill it. `why`: hang or broken; exit only gives the loan back: the runner is not ours."""
        self._link.tell("kill", number=self._number, why=why)
        if why == "exit":
            self.died(Death("exit", "was given back"))

    def died(self, death: Death) -> None:
        """What it said before is heard first."""
        self._post.end()
        self._on_death(death)


class Borrowing:
    """Every loan of this front."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = itertools.count(1)
        self._loans: dict[int, Borrowed] = {}

    def connect(
        self,
        target: str,
        memory: SlotMemory,
        on_message: Callable[[bytes], None],
        on_death: Callable[[Death], None],
    ) -> Borrowed:
        """A channel to the runner of `target`, as soon as there is one."""
        number = next(self._numbers)

        def over(death: Death) -> None:
            self._loans.pop(number, None)
            on_death(death)

        loan = self._loans[number] = Borrowed(self._link, number, target, memory, on_message, over)
        return loan

    def died(self, number: int, cause: str, words: str, crowded: bool) -> None:
        """The primary's word (a verb of the link): the runner behind a loan is dead."""
        loan = self._loans.get(number)
        if loan is not None:
            loan.died(Death(cause, words, crowded))

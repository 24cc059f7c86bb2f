"""One child process behind a SEQPACKET socket: started by a plain exec, heard through the event loop, missed at once.

The loop watches the socket (post.py) and the pidfd (death, seen within a millisecond). Messages that arrived
before the death are delivered before it is told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.running.post import Post
from gateway.running.slots import SlotMemory
from model_store.sandbox import child_environment

_SIGNALS = {
    signal.SIGKILL: ("oom", "was killed (SIGKILL: out of memory, or by hand)"),
    signal.SIGSEGV: ("segv", "crashed (SIGSEGV)"),
    signal.SIGBUS: ("segv", "crashed (SIGBUS)"),
    signal.SIGABRT: ("segv", "aborted (SIGABRT)"),
    signal.SIGILL: ("segv", "crashed (SIGILL)"),
    signal.SIGFPE: ("segv", "crashed (SIGFPE)"),
}
_STOPS = {
    "hang": "hung and was killed at the deadline",
    "exit": "was stopped",
    "broken": "sent a broken message and was stopped",
}


class Death(NamedTuple):
    """How a child ended. `cause` is a metric label: segv, oom, hang, exit."""

    cause: str
    words: str
    crowded: bool = False
    """Batches of several gateway processes ran in it: none of them can tell alone whose killed it."""


class RunnerProcess:
    """`python -m module args... --control FD`, with `fds` passed on under their own numbers.

    It must be made on the main thread: PDEATHSIG follows the thread that forked.
    """

    def __init__(
        self,
        module: str,
        args: Sequence[str],
        fds: Sequence[int],
        on_message: Callable[[bytes], None],
        on_death: Callable[[Death], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_death = on_death
        self._killed_for = ""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *args, "--control", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what runtimes print is log, and ours says one thing only on stdout
                pass_fds=(theirs.fileno(), *fds),
                env=child_environment(),
                process_group=0,  # a Ctrl-C at the terminal drains the gateway; it must not shoot its runners
                # not a session of its own: see model_store.sandbox.spawn_confined
            )
        self._post = Post(ours, on_message)
        self.send, self.receive_now = self._post.send, self._post.receive_now
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._dead)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self, why: str) -> None:
        """SIGKILL. `why`: hang, broken or exit."""
        if not self._killed_for:
            self._killed_for = why
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _dead(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._post.end()
        code = self._process.wait()
        os.close(self._pidfd)
        self._on_death(_death(code, self._killed_for))


def run_child(
    target: str,
    memory: SlotMemory,
    on_message: Callable[[bytes], None],
    on_death: Callable[[Death], None],
    door: int | None = None,
) -> RunnerProcess:
    """Start a runner. `door`: descriptor through which further channels will be handed to it (channel.py)."""
    args = ["--target", target, "--memory", str(memory.fd)]
    args += ["--slots", str(memory.count), "--slot-bytes", str(memory.slot_bytes)]
    fds = [memory.fd]
    if door is not None:
        args += ["--door", str(door)]
        fds.append(door)
    return RunnerProcess("gateway.running.runner_main", args, fds, on_message, on_death)


def _death(code: int, killed_for: str) -> Death:
    if killed_for:
        return Death("hang" if killed_for == "hang" else "exit", _STOPS[killed_for])
    if code < 0 and -code in set(_SIGNALS):
        return Death(*_SIGNALS[signal.Signals(-code)])
    return Death("exit", f"ended with code {code}")

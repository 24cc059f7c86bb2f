"""A process confines itself, for good, before it imports anything that reads a model.

Needs no privilege and gives up what there is: resource limits, no capabilities, `no_new_privs`, a seccomp filter, and
Landlock for the file system. The kernel is spoken to directly: a dependency here would be one more thing to trust.

What a confined process still can do: compute, read files it may read, write where it may write, talk over pipes and
unix sockets it was handed. What it cannot: open a network socket, leave its process group (so killing the group kills
everything it started), gain privileges, take the machine's memory before the gateway is asked for its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

from model_store.landlock import restrict_files
from model_store.seccomp import filter_calls

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. `seconds` is wall time; `nice` 19 is the lowest priority; `processes` 0 forbids any.

    `idle`: it gets only the time, of cores and of disks, that nobody else wants, and stays on the cores it is put on:
    runtimes would go back to those they once saw. `cores`: the only ones it runs on.

    `writable`: where it may write (with /dev/null and its like); None leaves that to the file permissions.
    `readable`: where it may read besides Python and the system libraries; None likewise. Both need Landlock and are
    skipped where the kernel has none; everything else holds regardless.
    """

    seconds: float = 900.0
    memory_bytes: int = 16 * GIB
    file_bytes: int = 8 * GIB
    nice: int = 19
    processes: int | None = None
    writable: tuple[str, ...] | None = None
    readable: tuple[str, ...] | None = None
    idle: bool = False
    cores: tuple[int, ...] | None = None


def confine(limits: Limits) -> None:
    """Confine the calling process, its threads to come and everything it starts."""
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    if limits.processes:
        _limit(resource.RLIMIT_NPROC, limits.processes)
    os.nice(limits.nice)
    if limits.idle:
        _be_idle()
    if limits.cores:
        os.sched_setaffinity(0, limits.cores)
    _be_first_to_go()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities()
    if limits.writable is not None or limits.readable is not None:
        restrict_files(limits.writable, limits.readable)
    filter_calls(forks=limits.processes != 0, moves=not limits.idle)


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = hard if value == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _be_idle() -> None:
    """SCHED_IDLE (man 7 sched), and the idle class of input and output (man 2 ioprio_set) where its number is known.

    Where a container forbids either, the nice value alone must do.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        _libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE << 13)


def _be_first_to_go() -> None:
    """When the machine runs out of memory, the kernel takes this process and not the gateway."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS, _IOPRIO_CLASS_IDLE = 1, 3


def _prctl(option: int, arg2: int, arg3: int = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(arg2), ctypes.c_ulong(arg3), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _drop_capabilities() -> None:
    """For a gateway that runs as root, as in many containers: its children are root in name only (man 2 capset)."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")

"""System calls that nothing which computes needs, refused by a seccomp filter (man 2 seccomp).

Refused with an error, never by a kill: a library that probes for a call must be able to go on without it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

_X86_64 = {
    "socket": 41, "clone": 56, "fork": 57, "vfork": 58, "ptrace": 101, "setpgid": 109, "setsid": 112,
    "sched_setaffinity": 203, "process_vm_writev": 311, "io_uring_setup": 425, "clone3": 435,
}  # fmt: skip
_AARCH64 = {
    "socket": 198, "clone": 220, "ptrace": 117, "setpgid": 154, "setsid": 157,
    "sched_setaffinity": 122, "process_vm_writev": 271, "io_uring_setup": 425, "clone3": 435,
}  # fmt: skip
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
"""machine -> (AUDIT_ARCH constant, numbers of the system calls named below)."""

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _GIVE = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_X32_BIT, _CLONE_THREAD = 0x40000000, 0x00010000
_AT_NUMBER, _AT_ARCH, _AT_FIRST_ARGUMENT = 0, 4, 16

Instruction = tuple[int, int, int, int]


def filter_calls(forks: bool, moves: bool = True) -> None:
    """Install the filter on the calling thread (so: before it starts others), for it and all it starts.

    Needs `no_new_privs`. `forks` false refuses new processes too; threads always work. `moves` false:
    it stays on the cores it is put on.
    """
    if platform.machine() not in _MACHINES:
        return
    arch, numbers = _MACHINES[platform.machine()]
    code = b"".join(struct.pack("HBBI", *row) for row in _program(arch, numbers, forks, moves))
    buffer = ctypes.create_string_buffer(code)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_void_p(ctypes.addressof(header)), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _program(arch: int, numbers: dict[str, int], forks: bool, moves: bool) -> list[Instruction]:
    refuse: Instruction = (_GIVE, 0, 0, _ERRNO | errno.EPERM)
    program: list[Instruction] = [
        (_LOAD, 0, 0, _AT_ARCH),
        (_JUMP_EQUAL, 1, 0, arch),
        refuse,
        (_LOAD, 0, 0, _AT_NUMBER),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),  # the x32 twins of every call: the same machine, other numbers
        refuse,
        # Any socket but a unix one.
        (_JUMP_EQUAL, 0, 4, numbers["socket"]),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_JUMP_EQUAL, 1, 0, 1),
        refuse,
        (_LOAD, 0, 0, _AT_NUMBER),
    ]
    # io_uring opens sockets without socket(2); the session calls would escape a kill of the process group.
    never = ["io_uring_setup", "setsid", "setpgid", "ptrace", "process_vm_writev"]
    if not moves:
        never.append("sched_setaffinity")
    if not forks:
        never += ["fork", "vfork"]
        program += [
            (_JUMP_EQUAL, 0, 4, numbers["clone"]),
            (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
            (_JUMP_SET, 1, 0, _CLONE_THREAD),
            refuse,
            (_LOAD, 0, 0, _AT_NUMBER),
            # clone3 hides its flags from a filter; told it is missing, libc makes its threads with clone.
            (_JUMP_EQUAL, 0, 1, numbers["clone3"]),
            (_GIVE, 0, 0, _ERRNO | errno.ENOSYS),
        ]
    for name in never:
        if name in numbers:
            program += [(_JUMP_EQUAL, 0, 1, numbers[name]), refuse]
    return [*program, (_GIVE, 0, 0, _ALLOW)]

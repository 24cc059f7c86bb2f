"""Which files a process may touch, by Landlock (man 7 landlock; kernel 5.13 and later), without any privilege.

Where the kernel has none, nothing is restricted: the other walls of the sandbox stand all the same.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_TRUNCATE = 1 << 14
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_SCOPE_SIGNALS_AND_ABSTRACT_SOCKETS = 3
_DEVICES = ("/dev/null", "/dev/zero", "/dev/shm")  # noqa: S108 (libraries keep semaphores there)
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/proc", "/sys", "/dev")


def landlock_version() -> int:
    """Landlock's ABI version in this kernel, 0 when there is none."""
    version: int = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    return max(version, 0)


def restrict_files(writable: Sequence[str] | None, readable: Sequence[str] | None) -> None:
    """Confine the calling process for good. None leaves that kind of access to the file permissions.

    A confined process also loses signals to, and abstract sockets of, processes outside (kernel 6.12 and later).
    """
    version = landlock_version()
    if not version:
        return
    handled = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    write = handled & ~_READ
    rules: list[tuple[str, int]] = []
    if readable is None:
        handled &= ~_READ
    else:
        rules += [(path, _READ) for path in (*readable, *_SYSTEM, *python_paths())]
        # An import lists the folder that its package lies in; of a checkout that is all that may be seen.
        rules.append((str(Path(__file__).resolve().parent.parent), _READ_DIR))
    if writable is None:
        handled &= ~write
    else:
        rules += [(path, write | _READ_FILE | _READ_DIR) for path in (*writable, *_DEVICES)]
    scoped = _SCOPE_SIGNALS_AND_ABSTRACT_SOCKETS if version >= 6 else 0
    attributes = struct.pack("QQQ", handled, 0, scoped)[: 24 if version >= 6 else 8]
    ruleset = _checked(_libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    try:
        _add_rules(ruleset, rules, handled)
        _checked(_libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _add_rules(ruleset: int, rules: Iterable[tuple[str, int]], handled: int) -> None:
    for path, access in rules:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # this machine has no such folder: nothing to allow
            continue
        try:
            allowed = access & handled & (-1 if Path(path).is_dir() else _OF_FILES)
            rule = struct.pack("=Qi", allowed, fd)
            if allowed:
                _checked(_libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
        finally:
            os.close(fd)


def python_paths() -> tuple[str, ...]:
    """Folders an import may read: the interpreter, its packages, and ours."""
    ours = Path(__file__).resolve().parent
    found = {sys.prefix, sys.base_prefix, str(ours), *(path for path in sys.path if path and path != str(ours.parent))}
    return tuple(sorted(found))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result

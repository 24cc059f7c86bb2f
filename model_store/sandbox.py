"""Run a module in a confined child process: limits, no network, no new privileges, a deadline, the cause of its end.

Models are hostile until shown otherwise, and the native code that reads them does crash. So everything that touches
the bytes of a model runs here: `python -m model_store.sandbox LIMITS MODULE ARGS...` confines *itself* before it
imports the module, which makes every run repeatable from a shell.

Confinement needs no privilege: resource limits, `no_new_privs`, and a seccomp filter that refuses every socket but
unix ones (man 2 seccomp; the filter is built by hand because it is eleven instructions).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import runpy
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

GIB = 1 << 30
_STDERR_TAIL = 8_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. `seconds` is wall time; `nice` 19 is the lowest priority."""

    seconds: float = 900.0
    memory_bytes: int = 16 * GIB
    file_bytes: int = 8 * GIB
    nice: int = 19
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended. `cause` is ok, error, timeout, memory, cancelled, or the signal's name (SIGSEGV, ...)."""

    cause: str
    returncode: int
    seconds: float
    peak_memory_bytes: int
    stderr: str

    @property
    def ok(self) -> bool:
        return self.cause == "ok"

    @property
    def crashed(self) -> bool:
        """True when native code died: the kind of end a model can cause and an exception cannot."""
        return self.cause.startswith("SIG") or self.cause == "memory"

    def last_words(self) -> str:
        """The last line the child wrote to stderr, or its cause."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else self.cause


def command(module: str, args: Sequence[str], limits: Limits) -> list[str]:
    """The command line that runs `module` confined; what a reproduce script holds."""
    encoded = msgspec.json.encode(asdict(limits)).decode()
    return [sys.executable, "-m", "model_store.sandbox", encoded, module, *args]


def run_confined(
    module: str,
    args: Sequence[str],
    *,
    limits: Limits,
    workdir: Path,
    on_line: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Outcome:
    """Run `python -m module args...` confined in `workdir`; never raises for what the child does.

    `on_line` gets every stdout line as it comes; `cancelled` is asked twice a second and kills the child when true.
    """
    child = spawn_confined(module, args, limits=limits, workdir=workdir)
    started = time.monotonic()
    stderr: list[str] = []
    readers = [
        threading.Thread(target=_pump, args=(child.stdout, on_line or (lambda _: None)), daemon=True),
        threading.Thread(target=_pump, args=(child.stderr, stderr.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    verdict, usage = "", None
    while usage is None:
        remaining = limits.seconds - (time.monotonic() - started)
        if remaining <= 0:
            verdict = "timeout"
        elif cancelled is not None and cancelled():
            verdict = "cancelled"
        if verdict:
            kill_group(child)
        usage = _wait(child, 0.5 if not verdict else 30.0)
        if verdict and usage is None:
            raise RuntimeError(f"child {child.pid} survived SIGKILL: the kernel holds it")
    for reader in readers:
        reader.join(timeout=5)
    text = "\n".join(stderr)[-_STDERR_TAIL:]
    return Outcome(
        cause=verdict or _cause(child.returncode, text),
        returncode=child.returncode,
        seconds=time.monotonic() - started,
        peak_memory_bytes=usage.ru_maxrss * 1024,
        stderr=text,
    )


def spawn_confined(
    module: str, args: Sequence[str], *, limits: Limits, workdir: Path, stdin: int | None = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start the child and hand it over: stdout and stderr are pipes, its process group is its own."""
    return subprocess.Popen(
        command(module, args, limits),
        cwd=workdir,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=child_environment(),
    )


def child_environment() -> dict[str, str]:
    """The parent's environment with telemetry off, our packages importable from any folder, and no secrets of ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FORGEWAY_")}
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, *(p for p in kept.get("PYTHONPATH", "").split(os.pathsep) if p and p != here)]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "NNCF_TELEMETRY": "0",
    }


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL the child and everything it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def confine(limits: Limits) -> None:
    """Confine the calling process for good. Called before anything that reads a model is imported."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.processes is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.processes, limits.processes))
    os.nice(limits.nice)
    _die_with_parent()
    _refuse_network()


def _pump(stream: object, line: Callable[[str], None]) -> None:
    for raw in stream:  # type: ignore[attr-defined]
        line(raw.decode("utf-8", "replace").rstrip("\n"))


def _wait(child: subprocess.Popen[bytes], timeout: float) -> resource.struct_rusage | None:
    """Reap with the child's own accounting (`Popen.wait` would lose its peak memory)."""
    fd = os.pidfd_open(child.pid)
    try:
        import select

        if not select.select([fd], [], [], timeout)[0]:
            return None
    finally:
        os.close(fd)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _cause(returncode: int, stderr: str) -> str:
    if returncode == 0:
        return "ok"
    if returncode < 0:
        return signal.Signals(-returncode).name
    return "memory" if "MemoryError" in stderr or "bad_alloc" in stderr else "error"


_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""machine -> (AUDIT_ARCH constant, number of socket(2))."""


def _prctl(option: int, arg2: int, arg3: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(arg2), ctypes.c_ulong(arg3), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _refuse_network() -> None:
    """seccomp: socket(domain != AF_UNIX) fails with EPERM; every other call is untouched."""
    if platform.machine() not in _SOCKET:
        return
    arch, nr_socket = _SOCKET[platform.machine()]
    load, jump_equal, give = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ERRNO | EPERM
    program = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (jump_equal, 1, 0, arch),
        (give, 0, 0, refuse),
        (load, 0, 0, 0),  # seccomp_data.nr
        (jump_equal, 0, 3, nr_socket),
        (load, 0, 0, 16),  # seccomp_data.args[0]: the domain
        (jump_equal, 1, 0, 1),  # AF_UNIX
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def main() -> None:
    encoded, module, *args = sys.argv[1:]
    confine(msgspec.json.decode(encoded, type=Limits))
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

"""Run a module in a confined child process: limits, no network, no new privileges, a deadline, the cause of its end.

Models are hostile until shown otherwise, and the native code that reads them does crash. So everything that touches
the bytes of a model runs here: `python -m model_store.sandbox LIMITS MODULE ARGS...` confines *itself* before it
imports the module, which makes every run repeatable from a shell.

What confinement means is `model_store.confinement`. A confined child cannot confine children of its own in this way:
it may not leave its process group.
"""

from __future__ import annotations

import contextlib
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

import msgspec

from model_store.confinement import GIB, Limits, confine

__all__ = [
    "GIB", "Limits", "Outcome",
    "child_environment", "command", "confine", "kill_group", "making_way", "run_confined", "spawn_confined",
]  # fmt: skip

_STDERR_TAIL, _LINE = 8_000, 1 << 16
_LOOK_S, _DYING_S = 0.1, 30.0
_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "annot allocate memory", "emory allocation")
"""How Python, C++, libc and OpenBLAS say it."""
_MAKING_WAY = """
import os, sys
_, cores, *command = sys.argv
try:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
except OSError:
    pass
if cores:
    os.sched_setaffinity(0, map(int, cores.split(",")))
os.execv(command[0], command)
"""
"""Python and our packages take a tenth of a second of a core to be there and confine themselves; this takes 10 ms."""
_SECRETS = ("SECRET", "TOKEN", "PASSW", "CREDENTIAL", "_KEY", "DATABASE_URL", "PGSERVICE")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended. `cause` is ok, error, timeout, memory, cancelled, or the signal's name (SIGSEGV, ...; of one
    without a name, SIG and its number)."""

    cause: str
    returncode: int
    seconds: float
    peak_memory_bytes: int
    stderr: str

    @property
    def ok(self) -> bool:
        return self.cause == "ok"

    def last_words(self) -> str:
        """The last line the child wrote to stderr, or its cause."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else self.cause


def command(module: str, args: Sequence[str], limits: Limits) -> list[str]:
    """The command line that runs `module` confined; what a reproduce script holds."""
    encoded = msgspec.json.encode(asdict(limits)).decode()
    return [sys.executable, "-m", "model_store.sandbox", encoded, module, *args]


def making_way(argv: Sequence[str], limits: Limits) -> list[str]:
    """The same command, in idle class and on its cores from the beginning where `limits` say so."""
    if not limits.idle:
        return list(argv)
    cores = ",".join(map(str, limits.cores or ()))
    return [sys.executable, "-I", "-S", "-c", _MAKING_WAY, cores, *argv]


def run_confined(
    module: str,
    args: Sequence[str],
    *,
    limits: Limits,
    workdir: Path,
    on_line: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    tend: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run `python -m module args...` confined in `workdir`; never raises for what the child does.

    `on_line` gets every stdout line as it comes. `cancelled` is asked ten times a second and kills the child when true;
    `tend` is as often called with the child's pid, which is its process group too. `clock`: what its seconds are of.
    """
    child = spawn_confined(module, args, limits=limits, workdir=workdir)
    started, begun = time.monotonic(), clock()
    stderr: deque[str] = deque(maxlen=200)
    readers = [
        threading.Thread(target=_pump, args=(cast(IO[bytes], child.stdout), on_line or (lambda _: None)), daemon=True),
        threading.Thread(target=_pump, args=(cast(IO[bytes], child.stderr), stderr.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    verdict, usage = "", None
    try:
        while usage is None and not verdict:
            remaining = limits.seconds - (clock() - begun)
            if remaining <= 0:
                verdict = "timeout"
            elif cancelled is not None and cancelled():
                verdict = "cancelled"
            if verdict:
                kill_group(child)
            elif tend is not None:
                tend(child.pid)
            usage = _wait(child, min(_LOOK_S, remaining) if not verdict else _DYING_S)
    except BaseException:  # a child must not go on when nobody asks for its end any more
        kill_group(child)
        _wait(child, _DYING_S)
        raise
    if usage is None:
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
    """Start the child and hand it over: stdout and stderr are pipes, its process group is its own.

    Not its session: where the kernel groups by session (man 7 sched, autogroup), a child in one of its own gets as much
    of the machine as the whole gateway, whatever its class and nice value, which count within a group only.

    The child dies with the *thread* that calls this (man 2 PR_SET_PDEATHSIG): let that thread wait for it.
    """
    environment = {k: v for k, v in child_environment().items() if not any(word in k.upper() for word in _SECRETS)}
    return subprocess.Popen(
        making_way(command(module, args, limits), limits),
        cwd=workdir,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        env=environment | {"TMPDIR": str(workdir)},
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
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _pump(stream: IO[bytes], line: Callable[[str], None]) -> None:
    with stream:
        while raw := stream.readline(_LINE):  # a child that never ends its line must not fill our memory
            line(raw.decode("utf-8", "replace").rstrip("\n"))


def _wait(child: subprocess.Popen[bytes], timeout: float) -> resource.struct_rusage | None:
    """Reap with the child's own accounting (`Popen.wait` would lose its peak memory), and all it started with it."""
    fd = os.pidfd_open(child.pid)
    try:
        poll = select.poll()  # select() cannot take descriptors above 1023
        poll.register(fd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return None
    finally:
        os.close(fd)
    kill_group(child)  # while the child is not reaped yet its number, and so the group's, is nobody else's
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _cause(returncode: int, stderr: str) -> str:
    if returncode == 0:
        return "ok"
    if any(words in stderr for words in _OUT_OF_MEMORY):
        return "memory"
    if returncode > 0:
        return "error"
    return signal_name(-returncode)


def signal_name(number: int) -> str:
    """`SIGSEGV`, say."""
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals, all but two, have no name
        return f"SIG{number}"


def main() -> None:
    encoded, module, *args = sys.argv[1:]
    limits = msgspec.json.decode(encoded, type=Limits)
    # Ends a child whose parent lost sight of it. Generous: the deadline proper is the parent's, in wall time.
    cpu_seconds = int(limits.seconds * (os.cpu_count() or 1)) + 60
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    confine(limits)
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

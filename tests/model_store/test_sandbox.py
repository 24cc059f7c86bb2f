"""The sandbox against children that do their worst: real processes, each one a few lines of Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import pytest

from model_store import landlock
from model_store.landlock import landlock_version
from model_store.sandbox import (
    GIB,
    Limits,
    Outcome,
    child_environment,
    command,
    making_way,
    run_confined,
    spawn_confined,
)

QUICK = Limits(seconds=20, memory_bytes=2 * GIB, nice=0)


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Runs the text of a module in the sandbox and says how it ended; printed lines end up in `child.lines`."""

    def run(source: str, limits: Limits = QUICK, **options: object) -> Outcome:
        (tmp_path / "bad_child.py").write_text(textwrap.dedent(source))
        run.lines = []  # type: ignore[attr-defined]
        return run_confined(
            "bad_child", [], limits=limits, workdir=tmp_path, on_line=run.lines.append, **options  # type: ignore[attr-defined]
        )  # fmt: skip

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return run


def test_a_good_child_is_ok_and_its_lines_arrive(child):
    outcome = child("print('one'); print('two')")
    assert outcome.ok
    assert child.lines == ["one", "two"]
    assert outcome.peak_memory_bytes > 1 << 20


def test_a_signal_without_a_name_is_a_crash_too(child):
    outcome = child("import os; os.kill(os.getpid(), 40)")
    assert outcome.cause == "SIG40"


def test_a_child_does_not_outlive_an_error_of_whoever_looks_after_it(child):
    children = []

    def tend(pid: int) -> None:
        children.append(pid)
        raise OSError("nobody can be asked")

    with pytest.raises(OSError, match="nobody can be asked"):
        child("import time; time.sleep(60)", tend=tend)
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_an_exception_is_an_error_whose_last_words_say_it(child):
    outcome = child("raise ValueError('the reason')")
    assert outcome.cause == "error"
    assert outcome.last_words() == "ValueError: the reason"


def test_a_segmentation_fault_is_named(child):
    outcome = child("import ctypes; ctypes.string_at(0)")
    assert outcome.cause == "SIGSEGV"


def test_a_child_past_its_deadline_is_killed(child):
    outcome = child("import time; time.sleep(60)", Limits(seconds=0.5))
    assert outcome.cause == "timeout"
    assert outcome.seconds < 10


def test_a_cancelled_child_is_killed(child):
    outcome = child("import time; time.sleep(60)", cancelled=lambda: True)
    assert outcome.cause == "cancelled"


def test_memory_beyond_the_limit_ends_the_child_not_the_machine(child):
    outcome = child("block = bytearray(8 << 30)", Limits(seconds=20, memory_bytes=1 * GIB))
    assert outcome.cause == "memory"


def test_native_code_out_of_memory_counts_as_memory(child):
    outcome = child("import sys, os; sys.stderr.write('std::bad_alloc'); sys.stderr.flush(); os.abort()")
    assert outcome.cause == "memory"


def test_a_file_beyond_the_limit_cannot_be_written(child, tmp_path):
    child("open('big', 'wb').write(bytes(2 << 20))", Limits(seconds=20, file_bytes=1 << 20))
    assert (tmp_path / "big").stat().st_size <= 1 << 20


def test_there_is_no_network_and_unix_sockets_work(child):
    outcome = child("""
        import socket
        socket.socketpair()
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
            try:
                socket.socket(family, socket.SOCK_DGRAM)
            except PermissionError:
                print("refused")
    """)
    assert outcome.ok, outcome.stderr
    assert child.lines == ["refused"] * 3


def test_io_uring_is_no_way_around_the_network_filter(child):
    outcome = child("""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        print(libc.syscall(425, 8, ctypes.create_string_buffer(256)), ctypes.get_errno())
    """)
    assert outcome.ok
    assert child.lines == ["-1 1"]


def test_what_a_child_started_dies_with_it(child, tmp_path):
    outcome = child("""
        import subprocess, sys
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(sleeper.pid)
    """)
    assert outcome.ok
    assert outcome.seconds < 10
    _until(lambda: not _alive(int(child.lines[0])))


def test_what_a_child_started_dies_with_its_deadline(child):
    outcome = child(
        """
        import subprocess, sys, time
        print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
        time.sleep(60)
        """,
        Limits(seconds=1.5),
    )
    assert outcome.cause == "timeout"
    _until(lambda: not _alive(int(child.lines[0])))


@pytest.mark.parametrize("idle", [True, False])
def test_an_idle_child_is_one_from_its_first_instruction(idle):
    code = "import os; print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.sched_getaffinity(0) == {CORE})"
    core = min(os.sched_getaffinity(0))
    limits = Limits(idle=idle, cores=(core,))
    argv = making_way([sys.executable, "-c", code.replace("CORE", str(core))], limits)
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == str(idle)
    assert not idle or done.stdout.split()[1] == "True"


def test_an_idle_child_stays_on_the_cores_it_is_put_on(child):
    outcome = child("import os; os.sched_setaffinity(0, os.sched_getaffinity(0))", Limits(seconds=20, idle=True))
    assert not outcome.ok and "PermissionError" in outcome.stderr
    assert child("import os; os.sched_setaffinity(0, os.sched_getaffinity(0))", Limits(seconds=20)).ok


@pytest.mark.parametrize("idle", [True, False])
def test_an_idle_child_and_what_it_starts_take_only_what_nobody_wants(child, idle):
    outcome = child(
        """
        import ctypes, os, platform, subprocess, sys, threading
        number = {"x86_64": 252, "aarch64": 31}[platform.machine()]
        def tell():
            print(os.sched_getscheduler(0) == os.SCHED_IDLE, ctypes.CDLL(None).syscall(number, 1, 0) >> 13 == 3)
        tell()
        thread = threading.Thread(target=tell)
        thread.start()
        thread.join()
        code = "import os; print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.nice(0))"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
        """,
        Limits(seconds=20, nice=19, idle=idle),
    )
    assert outcome.ok
    assert child.lines == [f"{idle} {idle}", f"{idle} {idle}", f"{idle} 19"]


def test_a_child_keeps_to_the_cores_it_is_given(child):
    core = max(os.sched_getaffinity(0))
    outcome = child("import os; print(sorted(os.sched_getaffinity(0)))", Limits(seconds=20, nice=0, cores=(core,)))
    assert outcome.ok
    assert child.lines == [f"[{core}]"]


def test_nobody_leaves_the_process_group(child):
    outcome = child("""
        import os
        for leave in (os.setsid, lambda: os.setpgid(0, 0)):
            if os.fork() == 0:
                try:
                    leave()
                except PermissionError:
                    os._exit(7)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.wait()[1]))
    """)
    assert outcome.ok
    assert child.lines == ["7", "7"]


def test_processes_can_be_forbidden_and_threads_still_work(child):
    outcome = child(
        """
        import os, subprocess, threading
        thread = threading.Thread(target=print, args=("thread",))
        thread.start(); thread.join()
        for start in (os.fork, lambda: subprocess.run(["true"])):
            try:
                start()
            except PermissionError:
                print("refused")
        """,
        Limits(seconds=20, processes=0),
    )
    assert outcome.ok, outcome.stderr
    assert child.lines == ["thread", "refused", "refused"]


def test_capabilities_are_gone_even_for_root(child):
    outcome = child("print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')))")
    assert outcome.ok
    assert int(child.lines[0], 16) == 0


def test_the_kernel_would_take_the_child_first(child):
    child("print(open('/proc/self/oom_score_adj').read().strip())")
    assert child.lines == ["1000"]


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_files_outside_are_out_of_reach_when_asked(child, tmp_path, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_text("secret")
    outcome = child(
        f"""
        import numpy, pathlib
        secret = pathlib.Path({str(secret)!r})
        new = secret.with_name("new")
        for touch in (secret.read_text, lambda: secret.write_text("x"), new.touch, secret.unlink):
            try:
                touch()
            except PermissionError:
                print("refused")
        pathlib.Path("mine").write_text("mine")
        print(pathlib.Path("mine").read_text())
        """,
        Limits(seconds=20, writable=(str(tmp_path),), readable=(str(tmp_path),)),
    )
    assert outcome.ok, outcome.stderr
    assert child.lines == ["refused"] * 4 + ["mine"]
    assert secret.read_text() == "secret"


@pytest.mark.skipif(landlock_version() < 6, reason="this kernel does not scope signals")
def test_the_parent_cannot_be_signalled_when_files_are_confined(child, tmp_path):
    outcome = child("import os; os.kill(os.getppid(), 0)", Limits(seconds=20, writable=(str(tmp_path),)))
    assert "PermissionError" in outcome.stderr


def test_secrets_of_the_environment_stay_here(child, monkeypatch):
    monkeypatch.setenv("FORGEWAY_DATABASE_URL", "postgresql://me:hunter2@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    child("import os; print([k for k, v in os.environ.items() if 'hunter2' in v])")
    assert child.lines == ["[]"]


def test_a_line_without_end_does_not_fill_our_memory(child):
    outcome = child("import os\nfor _ in range(40): os.write(2, b'x' * 1_000_000)\nraise SystemExit(3)")
    assert outcome.returncode == 3
    assert len(outcome.stderr) <= 8_000


def test_the_child_dies_with_its_parent(tmp_path):
    """A parent that is killed leaves nothing behind, whatever its child was doing."""
    (tmp_path / "sleeper.py").write_text("import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    parent = os.fork()
    if parent == 0:
        os.environ["PYTHONPATH"] = str(tmp_path)
        spawn_confined("sleeper", [], limits=QUICK, workdir=tmp_path)
        time.sleep(60)
        os._exit(0)
    _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    pid = int((tmp_path / "pid").read_text())
    _until(lambda: not _alive(pid))


def test_the_command_repeats_the_run_from_a_shell(tmp_path):
    (tmp_path / "hello.py").write_text("import sys; print('hello', *sys.argv[1:])")
    line = command("hello", ["again"], QUICK)
    assert line[0] == sys.executable
    done = subprocess.run(line, cwd=tmp_path, env=child_environment(), capture_output=True, text=True)
    assert done.stdout == "hello again\n"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_a_checkout_that_is_not_installed_is_importable_and_nothing_else_of_it_is_read(tmp_path):
    checkout, work = tmp_path / "checkout", tmp_path / "work"
    shutil.copytree(Path(landlock.__file__).parent, checkout / "model_store")
    (checkout / "room").mkdir()
    (checkout / "room" / "__init__.py").touch()
    (checkout / "secret.txt").write_text("of the owner")
    work.mkdir()
    source = f"""
        import subprocess, sys
        if __name__ == "__main__":
            subprocess.run([sys.executable, "-c", "import room.steps"], check=True)
            try:
                open({str(checkout / "secret.txt")!r})
            except PermissionError:
                print("not read")
    """
    (checkout / "room" / "steps.py").write_text(textwrap.dedent(source))
    limits = replace(QUICK, readable=(str(work), str(checkout / "room")), writable=(str(work),))
    encoded = msgspec.json.encode(asdict(limits)).decode()
    done = subprocess.run(
        [sys.executable, "-m", "model_store.sandbox", encoded, "room.steps"],
        cwd=work, env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "not read\n"), done.stderr

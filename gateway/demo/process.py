"""A gateway of one's own: `forgeway serve` as a child on a free loopback port, for demo, tests and benchmarks.

with GatewayProcess(data) as gateway:
    Client(gateway.url)...
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

RUNNER, WORKER = "gateway.running.runner_main", "compilers.worker"
"""The modules whose processes `pids` tells apart."""


class GatewayFailed(RuntimeError):
    """The gateway did not start, or did not stop with 0; the message holds the end of its log."""


class GatewayProcess:
    """Started by `start` (or `with`), stopped by `stop`. Its log is `<data>.log`; `ready_s` is how long it took."""

    def __init__(
        self,
        data: Path,
        *,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        patience_s: float = 60,
    ) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data.with_name(f"{data.name}.log")
        self.ready_s = 0.0
        self._flags, self._patience_s = tuple(flags), patience_s
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FORGEWAY_")}
        self._environment = kept | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> GatewayProcess:
        """Start and wait until it says it is ready. Raises GatewayFailed with the end of its log."""
        command = [sys.executable, "-m", "gateway.cli", "serve", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--grpc-port", "0", "--data", str(self.data), *self._flags]
        self.data.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() - started > self._patience_s:
                self.kill()
                raise GatewayFailed(
                    f"the gateway did not get ready (exit {self._process.returncode})\n{self.last_log()}"
                )
            time.sleep(0.02)
        self.ready_s = time.monotonic() - started
        return self

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5) as answer:  # noqa: S310 - our own port
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """SIGTERM and wait for the drain. Raises GatewayFailed when it does not end with 0."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            code = self._process.wait(self._patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise GatewayFailed(f"the gateway did not stop within {self._patience_s:g} s\n{self.last_log()}") from None
        if code != 0:
            raise GatewayFailed(f"the gateway stopped with exit code {code}\n{self.last_log()}")

    def kill(self) -> None:
        """SIGKILL, at once: what a power cut looks like to the data folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pids(self, module: str | None = None) -> list[int]:
        """Descendants of the gateway, or those that run `module` (RUNNER, WORKER, ...)."""
        found, level = [], [self.pid]
        parents = _parents()
        while level:
            level = [pid for pid, parent in parents.items() if parent in level]
            found += level
        return [pid for pid in found if module is None or module in _command(pid)]

    def pss_bytes(self, module: str = RUNNER) -> int:
        """Proportional memory of the gateway and of its children that run `module`."""
        return sum(_pss(pid) for pid in (self.pid, *self.pids(module)))

    def last_log(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def __enter__(self) -> GatewayProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        elif self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(self._patience_s)
            except subprocess.TimeoutExpired:
                self.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _parents() -> dict[int, int]:
    """pid -> parent's pid of every process that can be seen."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue  # it ended while we looked
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    return parents


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0

"""A peer as a child: started, waited for, weighed, rested while others are measured, stopped with all its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from benchmarks import processes
from benchmarks.peers.bodies import Body
from benchmarks.peers.roster import Peer
from gateway.demo.process import free_port

PATIENCE_S = 150.0


class PeerFailed(RuntimeError):
    """It is not installed, did not start, answered wrongly or ended; the message says which, for the table."""


class PeerProcess:
    """Started by `start`, stopped by `stop`. Its log lies in `folder`; `start_s`: exec to all models answering."""

    def __init__(self, peer: Peer, manifest: Path, folder: Path) -> None:
        self.peer, self.port = peer, free_port()
        self.log = folder / f"{peer.name}.log"
        self.start_s = 0.0
        self._manifest = manifest
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: set[int] = set()
        self._temp = tempfile.TemporaryDirectory(prefix=f"bench-{peer.name[:4]}-", ignore_cleanup_errors=True)

    def start(self, questions: Sequence[tuple[str, Body]]) -> None:
        """Returns when each (path, body) got an answer: some are up before all their models are. Raises PeerFailed."""
        if missing := self.peer.missing():
            raise PeerFailed(missing)
        started = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.peer.argv(self.port), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._temp.name,
                env=self._environment(), start_new_session=True,
            )  # fmt: skip
        for path, body in questions:
            while not self._answers(path, body):
                if self._process.poll() is not None:
                    raise PeerFailed(f"ended with {self._process.returncode} at its start: {self.last_words()}")
                if time.monotonic() - started > PATIENCE_S:
                    raise PeerFailed(f"gave no answer at {path} within {PATIENCE_S:g} s: {self.last_words()}")
                time.sleep(0.05)
        self.start_s = time.monotonic() - started

    def _answers(self, path: str, body: Body) -> bool:
        try:
            self.ask(path, body, timeout=10)
        except (urllib.error.URLError, OSError):
            return False
        return True

    def ask(self, path: str, body: Body, timeout: float = 60) -> tuple[bytes, dict[str, str]]:
        """Body and headers (names in lower case) of the answer. Raises urllib's errors."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body.content, dict(body.headers))
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.read(), {key.lower(): value for key, value in answer.headers.items()}

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pids(self) -> list[int]:
        """All its processes; those seen once are remembered until they end, whoever their parent is by then."""
        if self._process is not None:
            self._seen.update(processes.family(self._process.pid))
        return sorted(pid for pid in self._seen if Path(f"/proc/{pid}").exists())

    def rest(self) -> None:
        processes.tell(self.pids(), signal.SIGSTOP)

    def wake(self) -> None:
        processes.tell(reversed(self.pids()), signal.SIGCONT)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "its log is empty")

    def stop(self) -> None:
        left = self.pids()
        processes.tell(left, signal.SIGCONT)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        processes.tell([pid for pid in left if Path(f"/proc/{pid}").exists()], signal.SIGKILL)
        self._temp.cleanup()

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FORGEWAY_", "PYTHON"))}
        binaries = f"{self.peer.python.parent}:{kept.get('PATH', '')}"
        said = {
            "BENCH_PORT": str(self.port), "BENCH_SECOND_PORT": str(free_port()), "BENCH_MODELS": str(self._manifest),
            "BENCH_TEMP": self._temp.name, "PATH": binaries, "ORT_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        libpython = str(self.peer.python.resolve().parents[1] / "lib")
        own = {key: value.format(libpython=libpython) for key, value in self.peer.environment.items()}
        return kept | said | own

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

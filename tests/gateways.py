"""A real gateway process for tests: `forgeway serve` on a free port, its log kept, ended however the test ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import httpx
import onnx

from gateway.client import Client


class RunningGateway:
    """`url`, and `grpc` (host:port), once it is ready.

    Flags are those of `forgeway serve`; FORGEWAY_* of the environment is not seen.
    """

    def __init__(self, data: Path, *flags: str, ready: bool = True) -> None:
        self.data = data
        self.log = data.with_name(f"{data.name}.log")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FORGEWAY_")}
        command = [sys.executable, "-m", "gateway.cli", "serve", "--port", "0", "--grpc-port", "0"]
        command += ["--data", str(data), *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        self.grpc = ""
        self.url = self._announced() if ready else ""

    def stop(self, patience_s: float = 20) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def __enter__(self) -> RunningGateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _announced(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        found = re.search(r"http://\S+", line)
        if found is None:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the gateway did not get ready, said {line!r}\n{self.words()}")
        if (grpc := re.search(r"gRPC: ([^)]+)", line)) is not None:
            self.grpc = grpc[1]
        return found[0]


def wait_until_compiled(url: str, name: str, version: str = "1", patience_s: float = 60) -> dict[str, object]:
    """The version, once it has ended."""
    end = time.monotonic() + patience_s
    while True:
        facts: dict[str, object] = httpx.get(f"{url}/v1/models/{name}/versions/{version}").json()
        if facts["status"] in ("ready", "failed"):
            return facts
        assert time.monotonic() < end, f"{name} is still {facts['status']}"
        time.sleep(0.1)


def register_uncompiled(client: Client, name: str, model: onnx.ModelProto) -> str:
    """The new version: it is going to answer with the uploaded model, and nothing is built beside it."""
    accepted = client.register(name, model.SerializeToString(), policy={"targets": ["ort-cpu"], "rows": [1]})
    for job in accepted["jobs"][1:]:  # the first is that of the reference
        client.cancel(job)
    return str(accepted["version"])

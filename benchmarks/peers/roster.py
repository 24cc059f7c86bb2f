"""Who is measured beside Forgeway, how each is started and with which of its own settings.

Each has an environment of its own (.venv-peers/NAME, from lock/peers/NAME.txt) and one script under servers/.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".venv-peers"
SERVERS = Path(__file__).with_name("servers")


@dataclass(frozen=True)
class Peer:
    """`package`: whose version is told. `settings`: what was chosen, in words. `form`: a name in bodies.FORMS.

    `path`: of a prediction, with {model}. `command`: after the environment's interpreter, with {port}; none: a script.
    `plain`: no product, but what people write themselves. `analyzed`: perf_analyzer can ask it (it speaks V2 with model
    configurations and statistics, which KServe and MLServer leave out).
    """

    name: str
    title: str
    package: str
    settings: str
    form: str = "raw"
    path: str = "/models/{model}"
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False
    analyzed: bool = False

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python"

    def missing(self) -> str:
        """Why it cannot be started, in words; empty where it is installed."""
        if (ENVIRONMENTS / self.name / ".installed").exists():
            return ""
        log = ENVIRONMENTS / f"{self.name}.log"
        lines = [line for line in log.read_text().splitlines() if line.strip()] if log.exists() else []
        return f"not installed: {lines[-1].strip()[:200]}" if lines else "not installed: make peers"

    def argv(self, port: int) -> list[str]:
        words = self.command or (str(SERVERS / f"{self.name}_server.py"),)
        return [str(self.python), *(word.format(port=port) for word in words)]

    def version(self) -> str:
        """Of its package and of ONNX Runtime, in its environment."""
        code = f"from importlib.metadata import version as v; print(v('{self.package}'), 'ort', v('onnxruntime'))"
        done = subprocess.run([str(self.python), "-c", code], capture_output=True, text=True)
        return done.stdout.strip() or "unknown"


V2 = "/v2/models/{model}/infer"

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "fastapi", "FastAPI + ONNX Runtime", "fastapi",
            "uvicorn with uvloop and httptools, one process, the session called in the route; no batching",
            plain=True,
        ),
        Peer(
            "litserve", "LitServe", "litserve",
            "a worker process for each model, fast queue (ZeroMQ), batches up to 32 within 1 ms",
        ),
        Peer(
            "bentoml", "BentoML", "bentoml",
            "bentoml serve, one worker, adaptive batching up to 32",
            form="bentoml",
            command=("-m", "bentoml", "serve", "bentoml_server:Service", "--host", "127.0.0.1", "--port", "{port}"),
            environment={"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(SERVERS)},
        ),
        Peer(
            "mlserver", "MLServer", "mlserver",
            "adaptive batching up to 32 within 1 ms, models in the server's process (parallel_workers=0)",
            form="mlserver", path=V2,
        ),
        Peer(
            "kserve", "KServe SDK", "kserve",
            "one worker, no gRPC, no latency log; no batching of its own",
            form="v2-binary", path=V2,
        ),
        Peer(
            "pytriton", "Triton core (pytriton)", "nvidia-pytriton",
            "dynamic batcher up to 32 with zero delay, one instance",
            form="v2-binary", path=V2,
            analyzed=True,
            environment={"LD_LIBRARY_PATH": "{libpython}"},  # its stub must not take another libpython of the system
        ),
        Peer(
            "rayserve", "Ray Serve", "ray",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED=1, one replica a model, batches up to 32 without waiting",
            environment={"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"},
        ),
    )
}  # fmt: skip

ABSENT = {
    "onnxruntime-server": "not on PyPI: a C++ program to be built from source or run as a container image",
}
"""Peers that no environment can be made for, and why."""

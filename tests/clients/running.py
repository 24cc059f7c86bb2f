"""Runs a script of clients in their own environment, against a gateway."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.clients.models import MODELS, Served

PYTHON = Path(__file__).parents[2] / ".venv-clients/bin/python"
SCRIPTS = Path(__file__).parent / "scripts"
NAMES = (
    "triton_http", "triton_http_aio", "triton_grpc", "triton_grpc_aio", "triton_managing", "triton_shared_memory",
    "kserve_sdk", "agreement",
)  # fmt: skip


def run_script(
    gateway: Served, name: str, *flags: str, timeout_s: float = 200, **settings: str
) -> subprocess.CompletedProcess[str]:
    """`pytest scripts/NAME.py` there. The process with its output; its returncode is 0 when all went well."""
    model = gateway.data.parent / "simple.onnx"
    if not model.exists():
        model.write_bytes(MODELS["simple"].SerializeToString())
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("FORGEWAY_", "PYTEST_"))}
    environment |= {"FORGEWAY_HTTP": f"127.0.0.1:{gateway.port}", "FORGEWAY_GRPC": gateway.grpc}
    environment |= {"FORGEWAY_SIMPLE": str(model), **settings}
    command = [str(PYTHON), "-m", "pytest", "-c", str(SCRIPTS / "pytest.ini"), str(SCRIPTS / f"{name}.py"), *flags]
    return subprocess.run(command, env=environment, cwd=SCRIPTS, capture_output=True, text=True, timeout=timeout_s)

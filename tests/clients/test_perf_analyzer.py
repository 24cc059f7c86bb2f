"""perf_analyzer, unmodified: it reaches a result, and its breakdown of the server's time adds up."""

from __future__ import annotations

import base64
import csv
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.models import Served, serving

PERF = Path(__file__).parents[2] / ".work/perf_analyzer"
BINARY = PERF / "perf_analyzer"

pytestmark = [
    pytest.mark.skipif(not BINARY.exists(), reason="perf_analyzer is not here (x86-64 Linux only): make clients"),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("perf"), "--shared-memory", names=("simple", "simple_string")) as gateway:
        yield gateway


def perf(gateway: Served, protocol: str, report: Path, *flags: str, model: str = "simple") -> dict[str, float]:
    """The one row of its report. Its windows are short and its wish for stability small: this is no measurement."""
    address = f"127.0.0.1:{gateway.port}" if protocol == "http" else gateway.grpc
    command = [str(BINARY), "-m", model, "-i", protocol, "-u", address, "-f", str(report), "--verbose-csv"]
    command += ["-p", "400", "-s", "900", "-r", "5", *flags]
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(PERF)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Server:" in done.stdout and "Failed to obtain stable measurement" not in done.stdout, done.stdout
    with report.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    return {key: float(value) for key, value in row.items() if value not in ("", None)}


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("memory", ["none", "system"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_reaches_a_result(gateway: Served, tmp_path: Path, protocol: str, memory: str, concurrency: int) -> None:
    flags = ["--shared-memory", memory, "--concurrency-range", str(concurrency), "-b", "2"]
    row = perf(gateway, protocol, tmp_path / "report.csv", *flags)
    assert row["Inferences/Second"] > 0
    queue, infer = row["Server Queue"], row["Server Compute Infer"]
    inside = queue + infer + row["Server Compute Input"] + row["Server Compute Output"]
    assert infer > 0 and 0 < inside <= row["Avg latency"], row


@pytest.mark.parametrize(
    "flags",
    [
        ("http", "--input-tensor-format", "json", "--output-tensor-format", "json"),
        ("grpc", "--streaming"),
        ("grpc", "--async"),
    ],
)
def test_its_other_ways_to_ask(gateway: Served, tmp_path: Path, flags: tuple[str, ...]) -> None:
    assert perf(gateway, flags[0], tmp_path / "report.csv", *flags[1:])["Inferences/Second"] > 0


def test_it_sends_text(gateway: Served, tmp_path: Path) -> None:
    row = perf(gateway, "http", tmp_path / "report.csv", "--string-data", "17", model="simple_string")
    assert row["Inferences/Second"] > 0


def test_the_stand_in_for_libb64_is_base64() -> None:
    library = ctypes.CDLL(str(PERF / "libb64.so.0d"))
    for size in range(40):
        plain = bytes(range(200, 200 + size))
        code, state = ctypes.create_string_buffer(80), ctypes.create_string_buffer(16)
        library.base64_init_encodestate(state)
        half = library.base64_encode_block(plain[: size // 2], size // 2, code, state)
        half += library.base64_encode_block(plain[size // 2 :], size - size // 2, ctypes.byref(code, half), state)
        length = half + library.base64_encode_blockend(ctypes.byref(code, half), state)
        assert code.raw[:length] == base64.b64encode(plain)
        back = ctypes.create_string_buffer(80)
        library.base64_init_decodestate(state)
        count = library.base64_decode_block(code, length, back, state)
        assert back.raw[:count] == plain

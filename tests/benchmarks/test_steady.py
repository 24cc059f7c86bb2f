"""Paced load and the soak judge what happened: wrong answers are found out, stalls count, growth is seen."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from benchmarks import profiles, steady, targets
from benchmarks.measurements import ALL
from benchmarks.paced import Question
from benchmarks.soak import MIB, Memory, Soak, complete_lines, markdown, minute
from benchmarks.steady import Paced
from gateway.client.tensors import LENGTH_HEADER

EXPECTED = np.array([[1.0, 2.0, 3.0]], np.float32)


def answer(values: np.ndarray) -> tuple[bytes, int]:
    size = {"binary_data_size": values.nbytes}
    output = {"name": "y", "shape": list(values.shape), "datatype": "FP32", "parameters": size}
    head = json.dumps({"model_name": "m", "outputs": [output]}).encode()
    return head + values.tobytes(), len(head)


@contextmanager
def server(body: Callable[[int], bytes], head: int, status: Callable[[int], int] = lambda _: 200) -> Iterator[int]:
    """Answers the n-th request with `body(n)` and `status(n)`; whatever is asked."""
    count = iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            number = next(count)
            self.rfile.read(int(self.headers["content-length"]))
            content = body(number)
            self.send_response(status(number))
            self.send_header("content-length", str(len(content)))
            self.send_header(LENGTH_HEADER, str(head))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1]
        running.shutdown()


@pytest.fixture
def question(tmp_path: Path) -> dict[str, str]:
    request, expected = tmp_path / "q.http", tmp_path / "q.npz"
    request.write_bytes(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok")
    np.savez(expected, y=EXPECTED)
    return {"model": "m", "request": str(request), "expected": str(expected)}


def test_the_load_keeps_its_rate_and_right_answers_are_right(question: dict[str, str], tmp_path: Path):
    content, head = answer(EXPECTED * 1.001)
    with server(lambda _: content, head) as port:
        paced = steady.run(port, [question], 100.0, 1.0, tmp_path)
    assert paced.failed == 0
    assert paced.totals["m"]["count"] == pytest.approx(100, abs=2)
    assert sum(window["count"] for window in paced.windows) == paced.totals["m"]["count"]


def test_another_rows_answer_and_a_refusal_are_counted(question: dict[str, str], tmp_path: Path):
    right, head = answer(EXPECTED)
    wrong, _ = answer(EXPECTED[:, ::-1].copy())
    with server(lambda n: wrong if n == 3 else right, head, lambda n: 503 if n == 5 else 200) as port:
        paced = steady.run(port, [question], 50.0, 0.5, tmp_path)
    assert paced.failed == 2
    assert sorted(paced.faults) == [
        "HTTP/1.1 503 Service Unavailable",
        "output 'y' has cosine 0.714 with the reference's",
    ]


def test_a_stall_is_felt_by_all_that_were_planned_meanwhile(question: dict[str, str], tmp_path: Path):
    """A server that holds everything for 0.3 s once: an open loop goes on asking, so many answers are late, not one."""
    content, head = answer(EXPECTED)
    lock = threading.Lock()

    def body(number: int) -> bytes:
        with lock:
            if number == 250:
                time.sleep(0.3)
        return content

    with server(body, head) as port:
        paced = steady.run(port, [question], 200.0, 1.0, tmp_path)
    assert paced.failed == 0
    assert paced.totals["m"]["p90_s"] > 0.1


def test_an_answer_is_judged_by_its_numbers_not_by_its_bytes_alone():
    asked = Question("m", b"", {"y": EXPECTED})

    def fault(content: bytes, head: int, name: str = LENGTH_HEADER) -> str | None:
        header = f"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n{name}: {head}\r\n\r\n".encode()
        return asked.fault(header + content, len(header))

    content, head = answer(EXPECTED * 2)
    assert fault(content, head, LENGTH_HEADER.title()) is None and len(asked.known) == 1
    assert fault(content, head) is None
    content, _ = answer(np.full_like(EXPECTED, np.nan))
    assert "cosine nan" in str(fault(content, head))
    content, head = answer(EXPECTED.ravel())
    assert "is (3,), not (1, 3)" in str(fault(content, head))


def memory(growth_per_hour: float) -> Memory:
    at = [10.0 * step for step in range(181)]
    sizes = [int(100 * MIB + growth_per_hour * MIB * (second / 3600) + MIB * math.sin(second)) for second in at]
    return Memory("gateway", at, sizes, sizes)


def test_growth_is_told_from_noise():
    assert memory(0).flat(1800)
    assert not memory(20).flat(1800)
    assert memory(20).growth("rss", 1800) == pytest.approx(10 * MIB, rel=0.1)


def test_what_fills_in_the_first_fifth_is_no_leak():
    filling = memory(0)
    filling.rss = [size - max(0, 30 - step) * MIB for step, size in enumerate(filling.rss)]
    assert filling.flat(1800)


def test_each_minute_is_told_with_what_every_process_holds_by_then(tmp_path: Path):
    line = {"window": 1, "model": "m", "rate": 99.6, "p50_s": 0.001, "p99_s": 0.002, "max_s": 0.0301, "failed": 2}
    out = tmp_path / "out"
    out.write_text(json.dumps(line) + '\n{"window": 2, "mod')
    (told,) = complete_lines(out)
    assert minute(told, [memory(0)]) == (
        "minute 2: m 100/s, p50 1.00 ms, p99 2.00 (2.0x), longest 30, 2 failed; RSS in MiB: gateway 100"
    )


def test_a_soak_that_did_not_keep_up_is_not_steady():
    """In overload p99 / p50 is near one: both are the backlog. That must not pass."""
    total = {"count": 1000, "rate": 70.0, "p50_s": 2.0, "p99_s": 2.2, "failed": 0, "faults": {}}
    soak = Soak(100.0, 70.0, 30, Paced({"m": total}, []), {1: memory(0)}, [])
    verdicts = {what: held for what, _, held in soak.verdicts()}
    assert verdicts["m: p99 / p50 <= 3"] and not verdicts["m: p50 below the time of an answer at capacity"]
    assert "**missed**" in markdown(soak, {})


def test_targets_are_met_or_missed_or_not_measured(tmp_path: Path):
    rows = [targets.Row("a", "<=", 3, 3.0, "3.0", ""), targets.Row("b", ">=", 5, 4.9, "4.9", "")]
    rows.append(targets.Row("c", "<=", 1, None, "", "needs a peer"))
    assert [row.verdict for row in rows] == ["met", "**missed**", "not measured"]
    assert "| b | ≥ 5 | 4.9 | **missed** |  |" in targets.markdown(rows, {})
    slug = "no-such-machine"
    assert next(targets.peer_rows(tmp_path, slug)).how == "make bench-peers"
    row = {"title": "t", "sign": ">=", "bound": 5, "found": 6.0, "text": "6.0", "best": "Slow"}
    (tmp_path / f"2026-01-01-peers-{slug}.json").write_text(json.dumps({"targets": [row]}))
    assert next(targets.peer_rows(tmp_path, slug)).verdict == "met"


def test_every_measurement_can_be_asked_for_by_name():
    assert {"start", "first", "echo", "swaps", "overhead", "image", "steadiness"} <= set(ALL)


def test_samples_count_for_the_innermost_stage():
    raw = (
        "run (asyncio/runners.py:1);infer (gateway/serve.py:9);encode (gateway/codec/v2_reply.py:7) 30\n"
        "run (asyncio/runners.py:1);infer (gateway/serve.py:9) 50\n"
        "run (asyncio/runners.py:1) 15\n"
        "main (gateway/running/runner_main.py:3);run (compilers/targets/ort.py:8);deep (onnxruntime/capi.py:1) 5\n"
        "no count here\n"
    )
    found = profiles.shares(raw)
    assert found == {"encode": 30, "queue": 50, profiles.OTHER: 15, "compute": 5}


def test_shares_are_told_for_each_kind_of_process():
    found = {"gateway": Counter({"parse": 30, "queue": 10}), "runner": Counter({"compute": 60})}
    assert profiles.table(found).splitlines() == [
        "| stage | gateway (40% of all samples) | runner (60% of all samples) |",
        "|---|---|---|",
        "| compute |  | 100% |",
        "| parse | 75% |  |",
        "| queue | 25% |  |",
    ]


def test_every_part_of_a_stage_names_something_that_is_there():
    """A file that was renamed must not silently fall out of its stage."""
    root = Path(profiles.__file__).parents[1]
    parts = [part for _, parts in profiles.STAGES for part in parts if not part.startswith("uvicorn")]
    assert [part for part in parts if not list(root.glob(f"{part}*"))] == []

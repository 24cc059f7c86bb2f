"""What is said beside the peers is what was measured: bodies, figures, ratios, tables and the plot."""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import json
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

from benchmarks import processes, wrk
from benchmarks.figures import Figures, Spread
from benchmarks.models import from_files, tiny
from benchmarks.peers import bars, bodies, models, table, walk
from benchmarks.peers.roster import ABSENT, PEERS, ROOT, SERVERS
from benchmarks.peers.standing import Server
from benchmarks.rounds import Result

SAID = {
    "count": 900, "duration_us": 1_500_000, "p50_us": 100.0, "p90_us": 200.0, "p99_us": 300.0,
    "connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0, "moments": [],
}  # fmt: skip


def test_every_peer_has_its_lock_and_its_server():
    for peer in PEERS.values():
        assert (ROOT / "lock" / "peers" / f"{peer.name}.txt").exists(), peer.name
        assert (SERVERS / f"{peer.name}_server.py").exists(), peer.name
        assert peer.form in bodies.FORMS


def test_a_packed_row_comes_back_as_it_went():
    row = {"a": np.arange(6, dtype=np.int64).reshape(1, 2, 3), "b": np.ones((1, 4), np.float32)}
    described = [{"name": name, "dtype": value.dtype.name, "row": value.shape[1:]} for name, value in row.items()]
    back = bodies.unpacked(bodies.packed(row), described)
    assert all(np.array_equal(back[name], value) and back[name].shape == value.shape for name, value in row.items())
    with pytest.raises(ValueError, match="65 bytes where"):
        bodies.unpacked(bodies.packed(row) + b"x", described)


def test_peers_serve_the_very_bytes_and_their_own_code_runs_them(tmp_path: Path):
    """The servers' shared file, in an interpreter of its own as there, answers what the bare session answers."""
    subject = tiny()
    manifest = models.write([subject], tmp_path)
    code = (
        "import sys; from onnx_models import OnnxModel; row = sys.stdin.buffer.read()\n"
        "first, second = OnnxModel('tiny').run_packed([row, row]); assert first == second\n"
        "sys.stdout.buffer.write(first)"
    )
    environment = {"PYTHONPATH": str(SERVERS), "BENCH_MODELS": str(manifest), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], input=bodies.packed(subject.row), capture_output=True, check=True, env=environment
    )
    outputs = json.loads(manifest.read_text())["models"][0]["outputs"]
    assert list(walk.faults(models.expected(subject), bodies.unpacked(done.stdout, outputs))) == []


def test_a_wrong_answer_is_no_peer():
    right = {"y": np.array([[1.0, 100.0]], np.float32)}
    assert list(walk.faults(right, {"y": np.array([[1.05, 100.0]])})) == []
    assert "off" in next(walk.faults(right, {"y": np.array([[1.2, 100.0]])}))
    assert "off" in next(walk.faults(right, {"y": np.array([[1.0, float("nan")]])}))
    assert "missing" in next(walk.faults(right, {"z": right["y"]}))
    assert "is (1, 1), not (1, 2)" in next(walk.faults(right, {"y": np.ones((1, 1))}))


def test_fast_answers_are_counted_over_time_and_slow_ones_in_whole_waves():
    assert wrk.figures(SAID, 8).rate == pytest.approx(600)
    waves = [0.5 * wave + 0.001 * place for wave in range(5) for place in range(4)]
    assert wrk.figures(SAID | {"moments": waves, "count": 20}, 4).rate == pytest.approx(8)
    assert wrk.figures(SAID | {"status": 3, "timeout": 1}, 8).errors == 4
    with pytest.raises(wrk.NoAnswers, match=r"no answer in 1\.5 s, 2 errors"):
        wrk.figures(SAID | {"count": 0, "read": 2}, 8)


def test_processes_are_weighed_with_their_children():
    child = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(30)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        until = time.monotonic() + 20
        while processes.cpu_s(processes.family(parent.pid)[1:]) < 0.25 and time.monotonic() < until:
            time.sleep(0.05)
        family = processes.family(parent.pid)
        assert len(family) == 2 and family[0] == parent.pid
        assert processes.cpu_s(family) >= 0.25
        assert all(processes.pss_bytes(pid) > 1 << 20 and processes.rss_bytes(pid) > 1 << 20 for pid in family)
    finally:
        processes.tell(processes.family(parent.pid), signal.SIGKILL)
        parent.wait()
    assert processes.pss_bytes(parent.pid) == processes.rss_bytes(parent.pid) == processes.cpu_s([parent.pid]) == 0


def figures(rate: float) -> Figures:
    return Figures(rate, 1 / rate, 1 / rate, 2 / rate, 100)


def outcome() -> walk.Outcome:
    """Forgeway at 600 and 500, a peer at 100 and 125 that once failed in part, one that never started."""
    cell = ("tiny", 32)
    ours = Server("forgeway", "Forgeway", "V2", "", cells={cell: [figures(600), figures(500)]}, cpu_s={cell: [1, 2]})
    slow = Server("slow", "Slow", "raw", "", cells={cell: [figures(100), figures(125)]}, cpu_s={cell: [1, 2]})
    half = Server("half", "Half", "raw", "", cells={cell: [figures(900)]}, cpu_s={cell: [1]}, failure="it ended")
    never = Server("never", "Never", "raw", "", failure="no wheel for this machine")
    bare = {"tiny": [figures(1000), figures(1000)]}
    result = Result("tiny", "a note", 1000, 1.0, 0.5, [], "reference")
    analyzed = {"Forgeway": [figures(300)], "Slow": [figures(100)]}
    return walk.Outcome([ours, slow, half, never], [result], bare, bare, ["slow"], 1.0, analyzed)


def test_the_table_has_every_server_and_the_reason_of_those_left_out():
    text = table.markdown(outcome(), {"date": "today"}, "plot.svg")
    assert "| Slow | raw | 112 (100-125) | 0.113 (0.100-0.125) | 5.00 (4.00-6.00)x |" in text
    assert "| Never | raw | failed, see Servers |" in text and "no wheel for this machine" in text
    assert "(then it failed)" in text
    assert "| Slow | 100 | 3.00x | 10.00 | 20.00 |" in text
    assert all(name in text for name in ABSENT)
    assert "| tiny c=32, throughput | ≥ 5.0 | 5.00 (4.00-6.00) | Slow | met |" in text


def test_the_document_is_json_and_holds_every_round():
    content = json.loads(table.document(outcome(), {"date": "today"}))
    assert [each["rate"] for each in content["servers"][1]["cells"][0]["rounds"]] == [100, 125]


def test_the_plot_is_well_formed_and_to_scale():
    drawn = xml.fromstring(bars.svg(table.groups(outcome())))
    widths = [float(each.get("width", 0)) for each in drawn.iter() if each.get("fill") in ("#1f6fb2", "#b0b7bf")]
    assert len(widths) == 3
    assert widths[0] / widths[1] == pytest.approx(550 / 112.5, rel=1e-2)


def test_labels_cannot_break_the_plot():
    group = bars.Group("a < b & c", "req/s", [bars.Bar("<x>", Spread(1.0, 1.0, 1.0))])
    xml.fromstring(bars.svg([group]))


def test_a_model_of_ones_own_is_a_subject(tmp_path: Path):
    subject = tiny()
    (tmp_path / "m.onnx").write_bytes(subject.model)
    np.savez(tmp_path / "s.npz", **subject.samples, labels=np.zeros(1000))
    found = from_files(f"mine={tmp_path / 'm.onnx'},{tmp_path / 's.npz'}")
    assert found.name == "mine" and list(found.row) == ["x"] and "labels" in found.samples
    with pytest.raises(ValueError, match="is not NAME=MODEL"):
        from_files("mine=model.onnx")

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import compilers
from compilers import walk
from compilers.isolate import Isolation, StepFailed, Stopped
from compilers.reproduce import reproduce_script
from compilers.stepkey import SOURCES, Step
from model_store.entities import JobKind
from model_store.errors import LeaseLost
from tests import zoo
from tests.compilers.compiling import crash_in_children, events, register


@pytest.fixture
def isolation(store, tmp_path):
    """The steps of a claimed reference job, by hand."""
    version, _ = register(store, "mlp", zoo.mlp(), samples={"x": np.ones((10, 64), np.float32)})
    job = store.catalog.claim("test", [JobKind.REFERENCE], 60)
    made = Isolation(store, job, tmp_path, nice=0, stopped=lambda: False)
    made.version = version
    return made


def test_a_step_is_answered_once_and_remembered(isolation, store):
    probe = walk.probe(isolation.version)
    first = isolation.run(probe, "reference")
    assert first.result["max_rows"] == 64
    assert first.peak_memory_bytes > 10_000_000
    assert isolation.run(probe, "reference") == first
    log = [(event.status, event.data.get("reused")) for event in events(store, [isolation.job])]
    assert log == [("started", None), ("done", False), ("done", True)]


def test_a_refusal_is_an_answer_and_remembered_too(isolation, store):
    step = Step("build", {"target": "openvino-cpu", "options": {}}, {"model": isolation.version.samples})
    for _ in range(2):
        with pytest.raises(StepFailed, match="openvino-cpu build"):
            isolation.run(step, "broken")
    assert [event.data.get("reused") for event in events(store, [isolation.job])] == [None, False, True]


def test_everything_that_can_change_the_answer_is_in_the_key(isolation, monkeypatch):
    probe = walk.probe(isolation.version)
    other = [
        Step("outputs", probe.params, probe.inputs),
        Step("probe", probe.params | {"threads": 77}, probe.inputs),
        Step("probe", probe.params, probe.inputs | {"samples": "0" * 64}),
    ]
    keys = {step.key() for step in (probe, *other)}
    monkeypatch.setattr("compilers.hardware.fingerprint", lambda: {"cpu": "another"})
    keys.add(probe.key())
    monkeypatch.setattr("compilers.stepkey.tool_versions", lambda: {"onnxruntime": "99"})
    keys.add(probe.key())
    assert len(keys) == 6


def test_the_sources_of_every_step_exist():
    from compilers.steps import STEPS

    assert SOURCES.keys() == STEPS.keys()
    folder = Path(compilers.__file__).parent
    patterns = {pattern for sources in SOURCES.values() for pattern in sources}
    assert [pattern for pattern in sorted(patterns) if not list(folder.glob(f"{pattern}.py"))] == []


def test_a_crash_fails_the_step_with_its_signal_and_is_not_remembered(isolation, store, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        crash_in_children(patched, tmp_path, "probe")
        with pytest.raises(StepFailed, match="probe crashed with SIGSEGV"):
            isolation.run(walk.probe(isolation.version), "reference")
    assert events(store, [isolation.job])[-1].status == "failed"
    assert isolation.run(walk.probe(isolation.version), "reference").result["max_rows"] == 64


def test_cancelling_ends_the_child(store, isolation):
    cancelled = threading.Event()
    isolation._stopped = cancelled.is_set
    slow = walk.probe(isolation.version)
    threading.Timer(0.1, cancelled.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        for threads in range(1, 100):
            isolation.run(Step("probe", slow.params | {"threads": threads}, slow.inputs), "reference")
    assert time.monotonic() - started < 20


def test_time_that_has_run_out_is_the_reason(isolation):
    isolation.deadline = time.monotonic()
    with pytest.raises(StepFailed, match="time budget ran out during probe"):
        isolation.run(walk.probe(isolation.version), "reference")


def test_a_job_that_is_lost_is_not_worked_on(isolation, store):
    store.catalog.cancel(isolation.job.id)
    with pytest.raises(LeaseLost):
        isolation.run(walk.probe(isolation.version), "reference")


def test_the_script_repeats_the_steps(isolation, store, tmp_path):
    isolation.run(walk.probe(isolation.version), "reference")
    model = {"model": isolation.version.model}
    built = isolation.run(Step("build", {"target": "openvino-cpu", "options": {"precision": "f32"}}, model), "ov")
    agreeing = {f"artifact/{name}": digest for name, digest in built.files.items()}
    isolation.trail.append((Step("probe", walk.probe(isolation.version).params | {
        "target": "openvino-cpu", "options": {"precision": "f32"}}, agreeing), {}))  # fmt: skip
    script = reproduce_script("mlp's engine", isolation.trail)
    done = repeated(script, store, tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(store.blobs.root.parent).encode() not in script
    for folder in ("1-probe", "2-build", "3-probe"):
        assert b'"refused":null' in (tmp_path / "again" / folder / "answer.json").read_bytes()
    for name, digest in built.files.items():
        assert f"same: {tmp_path}/again/2-build/{name} {digest}" in done.stdout.splitlines()


def test_the_script_says_which_file_came_out_differently(isolation, store, tmp_path):
    model = {"model": isolation.version.model}
    build = Step("build", {"target": "openvino-cpu", "options": {"precision": "f32"}}, model)
    files = {"model.xml": "0" * 64, "model.bin": isolation.run(build, "ov").files["model.bin"]}
    done = repeated(reproduce_script("engine", [(build, files), (build, files)]), store, tmp_path)
    assert done.returncode == 1
    told = [line.partition(",")[0] for line in done.stderr.splitlines() if "DIFFERS" in line]
    assert told == [f"DIFFERS: {tmp_path}/again/{number}-build/model.xml" for number in (1, 2)]
    assert done.stdout.count("same: ") == 2


def repeated(script, store, tmp_path):
    """Run a script as a reader of the card would, in a folder of its own."""
    saved = tmp_path / "reproduce.sh"
    saved.write_bytes(script)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(saved), str(store.blobs.root.parent), str(tmp_path / "again")],
        env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

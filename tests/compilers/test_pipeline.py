"""The compile walk on small models, in a real store, with a real worker."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compilers import pipeline, walk
from compilers.isolate import Isolation
from compilers.recipe import candidates
from compilers.targets import load_target
from compilers.timing.measure import wins
from model_store.entities import Evidence, JobKind, JobState, Verdict, VersionStatus
from model_store.fsck import fsck
from model_store.policy import Policy
from model_store.store import ModelStore
from tests import zoo
from tests.compilers.compiling import crash_in_children, ended, events, register, variants, working

pytestmark = pytest.mark.xdist_group("pipeline")
"""One process runs them all, so that they can share a store."""

MLP = zoo.mlp(hidden=512, inputs=256)
MLP_SAMPLES = {"x": np.random.default_rng(5).standard_normal((100, 256)).astype(np.float32)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One store for tests that compile the same model, so that they share its finished steps."""
    opened = ModelStore.open(tmp_path_factory.mktemp("shared") / "data")
    yield opened
    opened.close()


def compiled(store, name, model, **options):
    _, jobs = register(store, name, model, **options)
    with working(store):
        return ended(store, jobs), variants(store, name)


def test_a_model_becomes_variants_with_a_verdict_evidence_and_reason(shared):
    jobs, found = compiled(shared, "mlp", MLP, samples=MLP_SAMPLES)
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    assert shared.catalog.version("mlp", "1").status is VersionStatus.READY
    assert set(found) == {"reference", "ort-cpu.graph-opt", "ort-cpu.int8-dynamic", "ort-cpu.int8-static"}
    assert found["reference"].reason == "the uploaded model itself"
    for variant in found.values():
        proven = variant.id != "reference"
        assert isinstance(variant.evidence, Evidence)
        assert variant.evidence.hardware["cpu"]
        assert variant.evidence.versions["onnxruntime"]
        assert variant.evidence.peak_memory_bytes > 10_000_000
        assert variant.plan.max_rows == 64
        assert b"compilers.steps" in shared.artifact_paths(variant.artifact)["reproduce.sh"].read_bytes()
        if proven:
            assert variant.evidence.agreement.samples == 70
            won = bool(wins(variant.evidence.timings))
            assert variant.verdict is (Verdict.SERVING if won else Verdict.ELIGIBLE)
            assert "70 samples" in variant.reason
            assert "at 1 row" in variant.reason
            assert variant.evidence.macs == 256 * 512 + 512 * 10
            assert variant.evidence.gate["sqnr_db"] == (60.0 if variant.recipe == "graph-opt" else 20.0)
    assert found["ort-cpu.graph-opt"].evidence.agreement.sqnr_db > 100
    assert 20 < found["ort-cpu.int8-static"].evidence.agreement.sqnr_db < 60
    assert found["ort-cpu.graph-opt"].evidence.precision_share == {"f32": 1.0}
    assert found["ort-cpu.graph-opt"].evidence.calibration == {}
    calibrated = found["ort-cpu.int8-static"].evidence
    assert calibrated.precision_share == {"int8": 1.0}
    assert calibrated.calibration["samples"] == shared.catalog.version("mlp", "1").samples
    assert [calibrated.calibration[key] for key in ("count", "calibration", "validation")] == [100, 30, 70]
    assert [spec["name"] for spec in calibrated.calibration["passes"]] == ["int8-static"]
    assert found["ort-cpu.int8-static"].size_bytes < found["reference"].size_bytes / 3
    assert fsck(shared).problems == ()


def test_an_artifact_answers_like_the_reference_from_where_its_blobs_lie(shared):
    _, found = compiled(shared, "opened", MLP, samples=MLP_SAMPLES, techniques=["fusion"])
    answers = []
    for variant in found.values():
        opened = load_target(variant.target).open(shared.artifact_paths(variant.artifact), variant.artifact.options, 1)
        answers.append(opened.run({"x": MLP_SAMPLES["x"][:3]})["y"])
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)


def test_a_twin_reuses_every_step(shared):
    compiled(shared, "first", MLP, samples=MLP_SAMPLES, techniques=["fusion"])
    jobs, found = compiled(shared, "twin", MLP, samples=MLP_SAMPLES, techniques=["fusion"])
    assert {event.data.get("reused") for event in events(shared, jobs) if event.status == "done"} == {True, None}
    assert not [event for event in events(shared, jobs) if event.status == "started"]
    assert found.keys() == {"reference", "ort-cpu.graph-opt"}


def test_without_samples_only_equality_is_proven(shared):
    _, found = compiled(shared, "bare", MLP)
    equal = found["ort-cpu.graph-opt"]
    assert equal.verdict in (Verdict.SERVING, Verdict.ELIGIBLE)
    assert "64 synthetic inputs" in equal.reason
    lossy = found["ort-cpu.int8-dynamic"]
    assert lossy.verdict is Verdict.INCONCLUSIVE
    assert lossy.reason.startswith("no samples")
    assert lossy.evidence.agreement is None
    assert lossy.evidence.timings
    assert lossy.artifact is not None
    uncalibrated = found["ort-cpu.int8-static"]
    assert (uncalibrated.verdict, uncalibrated.artifact) == (Verdict.INCONCLUSIVE, None)
    assert "no samples to calibrate on" in uncalibrated.reason


def test_a_variant_outside_the_gate_is_rejected_with_its_figures(shared):
    gate = {"cosine": 0.9999999}
    _, found = compiled(shared, "gated", MLP, samples=MLP_SAMPLES, techniques=["int8"], gate=gate)
    rejected = found["ort-cpu.int8-static"]
    assert rejected.verdict is Verdict.REJECTED
    assert "the gate asks 1" in rejected.reason
    assert rejected.evidence.agreement.samples == 64, "clear on the first look: the other six are not asked"
    assert rejected.evidence.timings == ()


def test_openvino_variants_of_a_convolutional_network(shared):
    images = {"image": np.random.default_rng(0).standard_normal((120, 3, 16, 16)).astype(np.float32)}
    asked = {"targets": ["openvino-cpu"], "techniques": ["fusion", "mixed-precision"]}
    _, found = compiled(shared, "cnn", zoo.residual_cnn(), samples=images, **asked)
    wanted = candidates(
        "openvino-cpu", shared.catalog.version("cnn", "1").operators, Policy(techniques=asked["techniques"])
    )
    assert found.keys() == {"reference", *(f"openvino-cpu.{recipe.name}" for recipe in wanted)}
    assert all(variant.verdict is not Verdict.REJECTED for variant in found.values()), found
    assert set(found["openvino-cpu.f32"].artifact.files) == {"model.xml", "model.bin", "reproduce.sh"}


def test_a_crash_of_a_child_rejects_the_variant_with_the_signal(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        crash_in_children(patched, tmp_path / "crash", "transform")
        jobs, found = compiled(store, "mlp", MLP, techniques=["fusion"])
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    crashed = found["ort-cpu.graph-opt"]
    assert (crashed.verdict, crashed.artifact) == (Verdict.REJECTED, None)
    assert crashed.reason == "transform crashed with SIGSEGV"
    kept = [event.data["script"] for event in events(store, jobs) if event.step == "reproduce"]
    assert b"compilers.steps transform" in store.blobs.open(kept[-1]).read()
    assert fsck(store).problems == ()


def test_a_crash_of_the_reference_fails_the_version(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        crash_in_children(patched, tmp_path / "crash", "probe")
        jobs, found = compiled(store, "mlp", MLP)
    assert [job.state for job in jobs] == [JobState.FAILED, JobState.CANCELLED]
    assert found == {}
    version = store.catalog.version("mlp", "1")
    assert (version.status, version.reason) == (VersionStatus.FAILED, "probe crashed with SIGSEGV")


def test_a_model_that_runs_on_nothing_fails_with_what_the_runtime_said(shared):
    shape = numpy_helper.from_array(np.array([-1, 7], np.int64), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", 7])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    jobs, _ = compiled(shared, "odd", model)
    assert jobs[0].state is JobState.FAILED
    assert "the model fails on every synthetic input tried" in jobs[0].error


def test_what_the_budget_leaves_no_time_for_is_told(shared):
    _, found = compiled(shared, "hurried", MLP, budget_seconds=0.001)
    assert {variant.verdict for variant in found.values()} == {Verdict.SERVING, Verdict.REJECTED}
    reasons = {variant.reason for name, variant in found.items() if name != "reference"}
    assert all("not tried: the budget of 0.001 s" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("model", "max_rows"),
    [(zoo.transformer(layers=1), 64), (zoo.multi_io(), 64), (zoo.strings(), 64), (zoo.simple(), 64),
     (zoo.batch_mixing(), 1), (zoo.scalar_output(), 1), (zoo.fixed_batch(), 1)],
    ids=["transformer", "multi_io", "strings", "simple", "batch_mixing", "scalar_output", "fixed_batch"],
)  # fmt: skip
def test_the_probe_tells_whether_rows_may_share_a_run(store, tmp_path, model, max_rows):
    version, _ = register(store, "any", model)
    job = store.catalog.claim("test", [JobKind.REFERENCE], 60)
    probed = pipeline.publish_reference(version, Isolation(store, job, tmp_path, nice=0, stopped=lambda: False))
    assert probed.plan.max_rows == max_rows
    assert probed.evidence.noise_sqnr_db == 200
    assert probed.verdict is Verdict.SERVING


def test_rows_of_a_model_that_mixes_them_are_compared_and_timed_alone(store):
    mixed = {"x": np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)}
    _, found = compiled(store, "mixing", zoo.batch_mixing(), samples=mixed, rows=[1, 8])
    assert found["ort-cpu.graph-opt"].plan.max_rows == 1
    assert [timing.rows for timing in found["ort-cpu.graph-opt"].evidence.timings] == [1]


def test_a_step_is_asked_only_what_decides_it(store):
    first, _ = register(store, "a", MLP)
    second, _ = register(store, "b", MLP, gate={"cosine": 0.5})
    assert walk.probe(first) == walk.probe(second)

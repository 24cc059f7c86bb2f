"""A recipe's passes as steps: what recipes share, runs once."""

from dataclasses import replace

import numpy as np
import pytest

from compilers import pipeline
from compilers.isolate import Isolation
from compilers.recipe import PassSpec, candidates
from compilers.transforming import transform
from model_store.entities import JobKind
from model_store.policy import Policy
from tests import zoo
from tests.compilers.compiling import events, register

SAMPLES = {"x": np.random.default_rng(5).standard_normal((40, 64)).astype(np.float32)}


@pytest.fixture
def subject(store, tmp_path):
    version, _ = register(store, "mlp", zoo.mlp(), samples=SAMPLES)
    job = store.catalog.claim("test", [JobKind.REFERENCE], 60)
    isolation = Isolation(store, job, tmp_path, nice=0, stopped=lambda: False)
    return pipeline.subject_of(version, Policy(), "ort-cpu", isolation), isolation


def recipe(subject, *last):
    static = next(
        found
        for found in candidates("ort-cpu", subject.version.operators, Policy())
        if any(spec.name == "int8-static" for spec in found.passes)
    )
    return replace(static, passes=(*static.passes[:-1], *last))


def test_recipes_that_work_from_statistics_share_one_calibration(subject, store):
    subject, isolation = subject
    made = [
        transform(subject, recipe(subject, *specs), isolation).files["model.onnx"]
        for specs in (
            [PassSpec("int8-static")],
            [PassSpec("int8-static", {"calibrator": "percentile", "percentile": 99.0})],
            [PassSpec("smooth-quant", {"alpha": 0.6}), PassSpec("int8-static")],
        )
    ]
    assert len(set(made)) == 3
    done = [event for event in events(store, [isolation.job]) if event.status == "done"]
    reused = {
        name: [event.data["reused"] for event in done if event.step == name] for name in ("calibrate", "transform")
    }
    assert reused["calibrate"] == [False, True, True]
    assert reused["transform"] == [False, False, True, False, True, False]


def test_what_the_runtime_leaves_unfused_is_reported(subject):
    subject, isolation = subject
    made = transform(subject, recipe(subject, PassSpec("int8-static")), isolation)
    assert made.result["regions"] == {"nodes": 4, "integer": {"QGemm": 2}, "stray": 2}


def test_gram_matrices_are_gathered_only_for_recipes_that_round_by_them(subject, store):
    subject, isolation = subject
    sizes = []
    for rounding in ("nearest", "gptq"):
        transform(subject, recipe(subject, PassSpec("int8-static", {"rounding": rounding})), isolation)
        step = next(step for step, _ in reversed(isolation.trail) if step.name == "calibrate")
        files = next(files for ran, files in isolation.trail if ran == step)
        sizes.append(store.blobs.size(files["statistics.npz"]))
    assert sizes[1] - sizes[0] > 4 * (64**2 + 128**2)


def test_a_recipe_without_statistics_goes_on_from_the_tidied_model_that_all_share(subject, store):
    subject, isolation = subject
    for spec in (PassSpec("int8-dynamic"), PassSpec("int8-dynamic", {"per_channel": False}), PassSpec("int8-static")):
        transform(subject, recipe(subject, spec), isolation)
    done = [event for event in events(store, [isolation.job]) if event.status == "done" and event.step == "transform"]
    assert [event.data["reused"] for event in done] == [False, False, True, False, True, False]


def test_a_recipe_that_only_tidies_is_one_step(subject):
    subject, isolation = subject
    transform(subject, candidates("ort-cpu", subject.version.operators, Policy())[0], isolation)
    assert [step.name for step, _ in isolation.trail if step.name in ("calibrate", "transform")] == ["transform"]

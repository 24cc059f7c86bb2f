import os
import signal
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from compilers import words
from compilers.timing import measure
from compilers.timing.measure import LOOK_ROUNDS, LOST_ROUNDS, WIN, Died, Untimeable, lost, timing, wins
from model_store.entities import Signature, TensorSpec, Timing, Verdict
from tests import zoo

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 512)),), (TensorSpec("y", "FP32", (-1, 10)),))
ORT = {"target": "ort-cpu", "options": {"precision": "f32"}}


def rounds(count, p50_ms, seed=0, runs=5):
    random = np.random.default_rng(seed)
    return [(random.lognormal(0, 0.05, runs) * p50_ms * 1e6).astype(int).tolist() for _ in range(count)]


def params(**changed):
    return {
        "reference": ORT, "variant": ORT, "threads": 1, "seconds": 0.3, "most_seconds": 5.0, "rows": [1, 4],
        "rowwise": True, "guess": 0, "signature": msgspec.to_builtins(SIGNATURE),
    } | changed  # fmt: skip


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(zoo.mlp(hidden=8192, inputs=512), "large.onnx")
    onnx.save(zoo.mlp(hidden=16, inputs=512), "small.onnx")
    return {"reference/model.onnx": tmp_path / "large.onnx", "variant/model.onnx": tmp_path / "small.onnx"}


def test_a_timing_sums_up_rounds_in_seconds():
    found = timing(8, rounds(20, 3.0), rounds(20, 1.0, seed=1))
    assert (found.rows, found.runs) == (8, 50)  # of the quieter half of the rounds
    assert found.speedup == pytest.approx(found.reference_p50_s / found.p50_s) == pytest.approx(3, rel=0.03)
    assert found.speedup_lower <= found.speedup <= found.speedup_upper
    assert found.p50_s == pytest.approx(0.001, rel=0.03)
    assert found.p50_s <= found.p90_s <= found.p99_s
    assert wins([found]) == (found,)


def test_equal_engines_do_not_win():
    assert not any(
        wins([timing(1, rounds(20, 1.0, seed=seed), rounds(20, 1.0, seed=seed + 100))]) for seed in range(20)
    )


def test_a_gain_that_only_busy_rounds_show_is_not_claimed():
    quiet, busy = rounds(15, 1.0), rounds(25, 9.0)
    found = timing(1, quiet + busy, rounds(40, 1.0, seed=1))
    assert found.speedup == pytest.approx(1, rel=0.05)
    assert found.speedup_lower < WIN


def test_a_smaller_model_is_measured_faster_in_children_of_its_own(models):
    found = measure.measure(params(), models)
    assert [each.rows for each in found.timings] == [1, 4]
    assert all(each.speedup_lower > 2 and each.runs >= measure.LEAST_ROUNDS for each in found.timings)
    assert found.variant_memory_bytes > 10_000_000


def test_a_model_whose_rows_must_not_share_a_run_is_timed_alone(models):
    assert [each.rows for each in measure.measure(params(rowwise=False), models).timings] == [1]


def test_a_batch_size_that_takes_too_long_is_left_out_but_never_the_first(models):
    found = measure.measure(params(most_seconds=0.0), models)
    assert [each.rows for each in found.timings] == [1]
    assert found.skipped == (4,)


def test_a_variant_that_loses_every_round_is_not_timed_any_longer(models, monkeypatch):
    asked = []
    monkeypatch.setattr(measure.Stopwatch, "run", counting(measure.Stopwatch.run, asked))
    found = measure.measure(params(rows=[1], seconds=60.0), swapped(models))
    assert found.timings[0].speedup_upper < 1
    assert LOST_ROUNDS <= asked.count("variant") == asked.count("reference") <= 5 * LOST_ROUNDS


def test_a_batch_size_after_one_without_a_gain_is_given_less_time(models):
    asked = params(rows=[1, 256], most_seconds=1.0)
    assert measure.measure(asked, models).skipped == ()
    found = measure.measure(asked, swapped(models))
    assert [each.rows for each in found.timings] == [1]
    assert found.skipped == (256,)


def test_no_gain_is_given_up_but_by_chance_and_no_loss_is_followed_up():
    def ended(ratio, seed):
        """The number of rounds after which the variant was given up, or None: it never was."""
        random = np.random.default_rng(seed)
        reference, variant = random.lognormal(0, 0.05, (2, 60))
        looks = range(LOOK_ROUNDS, 61, LOOK_ROUNDS)
        return next((count for count in looks if lost(reference[:count], variant[:count] / ratio)), None)

    assert not any(ended(1.1, seed) for seed in range(500))
    assert sum(ended(WIN, seed) is not None for seed in range(500)) <= 5
    assert {ended(0.8, seed) for seed in range(100)} == {LOST_ROUNDS}


def test_a_variant_that_its_runtime_refuses_is_told(models, tmp_path):
    (tmp_path / "small.onnx").write_bytes(b"no model")
    with pytest.raises(Untimeable, match="the variant failed while being timed: ort-cpu open"):
        measure.measure(params(), models)


def test_a_child_that_dies_is_told_with_its_signal(models, monkeypatch):
    real = subprocess.Popen

    def doomed(command, **options):
        child = real(command, **options)
        if "variant.json" in command:
            os.kill(child.pid, signal.SIGSEGV)
        return child

    monkeypatch.setattr(measure.subprocess, "Popen", doomed)
    with pytest.raises(Died, match="the variant crashed with SIGSEGV while being timed"):
        measure.measure(params(), models)


def test_nothing_is_left_running(models):
    measure.measure(params(rows=[1]), models)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert not any(b"compilers.timing.stopwatch" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children)


def swapped(models):
    """The small model as the reference of the large one."""
    return {"reference/model.onnx": models["variant/model.onnx"], "variant/model.onnx": models["reference/model.onnx"]}


def counting(run, asked):
    def counted(watch, *args):
        asked.append(watch.side)
        return run(watch, *args)

    return counted


def told(rows, speedup, lower, upper):
    return Timing(rows, 0.001, 0.001, 0.001, 0.001 * speedup, speedup, lower, upper, 100)


def test_the_words_of_a_win():
    timings = [told(1, 3.14, 2.95, 3.3), told(8, 3.44, 3.2, 3.6)]
    assert words.reason(Verdict.SERVING, "cosine 0.9996 on 700 samples", timings, {}) == (
        "3.1x at 1 row (at least 2.9x), 3.4x at 8; cosine 0.9996 on 700 samples"
    )


def test_the_words_of_a_loss_say_what_stayed_in_float():
    timings = [told(1, 0.709, 0.69, 0.7212)]
    assert words.reason(Verdict.ELIGIBLE, "cosine 0.99 on 50 samples", timings, {"Conv": (54, 23)}) == (
        "not faster: 0.70x at 1 row (0.69x to 0.73x); 31 of 54 Conv stayed in float; cosine 0.99 on 50 samples"
    )


def test_the_words_name_the_batch_sizes_that_were_too_slow():
    said = words.reason(Verdict.SERVING, "j", [told(1, 3.14, 2.95, 3.3)], {}, [32])
    assert said == "3.1x at 1 row (at least 2.9x), 32 too slow to time; j"
    said = words.reason(Verdict.ELIGIBLE, "j", [told(1, 0.9, 0.8, 0.95)], {}, [32])
    assert said == "not faster: 0.90x at 1 row (0.80x to 0.95x), 32 too slow to time for want of a gain; j"


def test_the_words_of_doubt():
    assert words.reason(Verdict.ELIGIBLE, "j", [told(1, 1.2, 0.9, 1.5)], {}).startswith("not proven faster than 1.03x:")
    assert words.reason(Verdict.INCONCLUSIVE, words.NO_SAMPLES, [told(1, 2, 1.9, 2.1)], {}).startswith("no samples")

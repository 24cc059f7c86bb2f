"""The benchmark goes on where it was ended, and calls slower only what is."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import never_slower
from benchmarks.never_slower import Kept, Pair
from benchmarks.varied import MODELS, samples_of
from model_store.entities import Timing

EVIDENCE = Timing(8, 0.001, 0.001, 0.001, 0.002, 2.0, 1.9, 2.1, 100)


def again(speedup: float, lower: float, upper: float) -> Timing:
    return replace(EVIDENCE, speedup=speedup, speedup_lower=lower, speedup_upper=upper)


@pytest.mark.parametrize(
    ("timing", "slower", "mark"),
    [
        (again(1.5, 1.4, 1.6), False, ""),
        (again(0.98, 0.95, 1.01), False, "(near one)"),
        (again(0.9, 0.85, 0.95), True, "SLOWER"),
    ],
)
def test_slower_is_what_lies_below_one_with_its_whole_interval(timing: Timing, slower: bool, mark: str) -> None:
    pair = Pair("ort-cpu.int8", 8, EVIDENCE, timing)
    assert pair.slower is slower
    assert pair.words.endswith(mark or ")")


def test_what_was_timed_is_kept(tmp_path: Path) -> None:
    kept = Kept.read(tmp_path / "kept.json")
    kept.timed["m"] = {"ort-cpu.int8": [Pair("ort-cpu.int8", 8, EVIDENCE, again(1.5, 1.4, 1.6))], "ort-cpu.graph": []}
    kept.failed["n"] = "ort-cpu: it does not run"
    kept.write()
    read = Kept.read(tmp_path / "kept.json")
    assert (read.timed, read.failed, read.machine) == (kept.timed, kept.failed, kept.machine)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]


def test_without_time_everything_is_still_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["never_slower", "--kept", str(tmp_path), "--models", "simple,mlp", "--for", "0"])
    with pytest.raises(SystemExit) as end:
        never_slower.main()
    assert end.value.code == 0
    assert "0 models, 0 pairs" in (told := capsys.readouterr().out) and "still to be done: simple, mlp" in told


def test_an_unknown_model_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["never_slower", "--kept", str(tmp_path), "--models", "simpel"])
    with pytest.raises(SystemExit) as end:
        never_slower.main()
    assert end.value.code == 2
    assert "no model 'simpel'" in capsys.readouterr().err


def test_the_table_names_the_pair_that_gained_least(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.json", {"date": "today"})
    pairs = [Pair("a", 1, EVIDENCE, again(1.5, 1.4, 1.6)), Pair("a", 8, EVIDENCE, again(0.9, 0.85, 0.95))]
    kept.timed = {"m": {"a": pairs}, "n": {}}
    table = never_slower.markdown(kept)
    assert "2 models, 2 pairs of variant and bucket timed again: 1 slower, 0 near one." in table
    assert "| m | 2 | 0.90x [0.85, 0.95] | a at 8 rows, SLOWER | 2.00x |" in table
    assert "| n | 0 | - | the reference alone answers | - |" in table


def test_the_json_is_one_that_anybody_reads(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.json")
    kept.timed["m"] = {"a": [Pair("a", 8, EVIDENCE, EVIDENCE)]}
    kept.write()
    (pair,) = json.loads(kept.path.read_text())["timed"]["m"]["a"]
    assert pair["again"]["speedup"] == 2.0


@pytest.mark.parametrize("name", ["simple", "strings", "fixed-batch", "multi-io", "onnx-Linear"])
def test_samples_fit_their_model(name: str) -> None:
    model = MODELS[name]()
    given = samples_of(name, model)
    assert {each.name for each in model.graph.input} - {each.name for each in model.graph.initializer} == set(given)
    assert len({len(array) for array in given.values()}) == 1

"""The memory of a search: nothing is tried twice, a killed search goes on, an ended one stays ended."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compilers.recipe import candidates
from compilers.search.gain import dominates, since_gain
from compilers.search.space import space_of
from compilers.search.study import Found, Study, Trial, Tried, sampler_for
from model_store.policy import Policy

OPERATORS = {"Conv": 20, "Relu": 17, "Gemm": 1}
BASE = next(found for found in candidates("ort-cpu", OPERATORS, Policy()) if found.name == "int8-static")
SPACE = space_of(BASE, OPERATORS, Policy())


def cost(choice):
    """The best choice is mse, smoothed by a half, with gptq."""
    return 1 - 0.3 * (choice["smooth_all"] == 0.5) - 0.2 * (choice["calibrator"] == "mse") - 0.1 * (
        choice["rounding"] == "gptq"
    )  # fmt: skip


def opened(tmp_path, warm=(), **policy):
    return Study(tmp_path / "search.journal", SPACE, Policy(**policy), warm)


def play(study, trials, violation=-1.0):
    asked = []
    for _ in range(trials):
        trial = study.ask()
        if trial is None:
            break
        asked.append(trial)
        values = (cost(trial.choice),) if study._objectives == 1 else (cost(trial.choice), 2 - cost(trial.choice))
        study.tell(trial, Found("right", values, violation))
    return asked


def test_the_ladder_comes_first_then_the_sampler_and_nothing_twice(tmp_path):
    asked = play(opened(tmp_path, budget_trials=60), 40)
    assert [trial.choice for trial in asked[: len(SPACE.ladder)]] == [SPACE.whole(part) for part in SPACE.ladder]
    assert len({str(trial.choice) for trial in asked}) == 40
    assert min(cost(trial.choice) for trial in asked) == pytest.approx(0.4)


def test_what_served_earlier_models_is_tried_before_the_ladder(tmp_path):
    warm = SPACE.whole({"symmetric": True, "rounding": "gptq"})
    foreign = {"calibrator": "of another version"}
    asked = play(opened(tmp_path, warm=[foreign, warm]), 2)
    assert [trial.choice for trial in asked] == [warm, SPACE.whole(SPACE.ladder[0])]


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_a_space_is_walked_to_its_end_whatever_the_sampler(tmp_path, sampler):
    small = space_of(BASE, OPERATORS, Policy())
    small = type(small)(BASE, small.knobs[2:], ({"rounding": "gptq"},))
    study = Study(tmp_path / "s.journal", small, Policy(search={"sampler": sampler}))
    asked = play_small(study)
    assert len(asked) == small.size == 8
    assert study.ask() is None


def play_small(study):
    asked = set()
    while (trial := study.ask()) is not None:
        asked.add(str(trial.choice))
        study.tell(trial, Found("right", (1.0,), -1))
    return asked


def test_two_objectives_are_searched_together(tmp_path):
    study = opened(tmp_path, second_objective="size")
    asked = play(study, 20)
    assert len({str(trial.choice) for trial in asked}) == 20
    assert len(study.tried()[0].found.values) == 2


def test_a_search_resumes_with_the_trial_it_was_killed_in(tmp_path):
    study = opened(tmp_path)
    before = play(study, 7)
    lost = study.ask()
    resumed = opened(tmp_path)
    assert [tried.choice for tried in resumed.tried()] == [trial.choice for trial in before]
    assert resumed.ask().choice == lost.choice
    assert opened(tmp_path).ended is None
    resumed.end("no gain for 6 trials")
    assert opened(tmp_path).ended == "no gain for 6 trials"


def test_a_search_killed_anywhere_loses_no_finished_trial(tmp_path):
    """kill -9 in the middle of writing: half a line at the end of the journal, and a lock that was held."""
    code = (
        "import os, sys, pathlib\n"
        "from tests.compilers.search.test_search_study import opened, play\n"
        "study = opened(pathlib.Path(sys.argv[1]))\n"
        "play(study, 3)\n"
        "study.ask()\n"
        "journal = pathlib.Path(sys.argv[1], 'search.journal')\n"
        'journal.write_bytes(journal.read_bytes() + b\'{"op_code": 4, "wor\')\n'
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert ended.returncode == -9
    study = opened(tmp_path)
    assert len(study.tried()) == 3
    assert len({str(trial.choice) for trial in play(study, 10)} - {str(t.choice) for t in study.tried()[:3]}) == 10


def test_a_choice_asked_for_is_answered_from_memory_when_it_was_tried(tmp_path):
    study = opened(tmp_path)
    trial = study.ask_for(SPACE.first, 4)
    assert isinstance(trial, Trial)
    assert (trial.choice, trial.without) == (SPACE.first, 4)
    study.tell(trial, Found("wrong", (1.0,), 0.5, words="why"))
    assert study.ask_for(SPACE.first, 4) == Found("wrong", (1.0,), 0.5, words="why")
    assert isinstance(study.ask_for(SPACE.first, 2), Trial)


def test_failed_trials_are_remembered_too(tmp_path):
    study = opened(tmp_path)
    trial = study.ask()
    study.tell(trial, Found("failed", words="transform crashed with SIGSEGV"))
    assert opened(tmp_path).tried() == [Tried(trial.choice, 0, Found("failed", words="transform crashed with SIGSEGV"))]


@pytest.mark.parametrize(
    ("size", "policy", "sampler"),
    [
        (12, {}, "grid"),
        (160, {"budget_trials": 10}, "random"),
        (160, {}, "tpe"),
        (12, {"second_objective": "size"}, "nsga2"),
        (160, {"search": {"sampler": "grid"}}, "grid"),
    ],
)
def test_what_auto_means(size, policy, sampler):
    assert sampler_for(Policy(**policy), size) == sampler


def test_gains_are_counted_by_the_gate_first_then_by_the_objective():
    def tried(*found):
        return [Tried({}, 0, each) for each in found]

    wrong, less_wrong = Found("wrong", (0.5,), 1.0), Found("wrong", (0.5,), 0.5)
    right, hardly, better = (Found("right", (value,), -1) for value in (0.5, 0.49, 0.4))
    assert since_gain([]) == 0
    assert since_gain(tried(wrong, less_wrong)) == 0
    assert since_gain(tried(less_wrong, wrong, wrong)) == 2
    assert since_gain(tried(less_wrong, right)) == 0
    assert since_gain(tried(right, hardly, less_wrong, Found("failed"))) == 3
    assert since_gain(tried(right, hardly, better)) == 0
    assert dominates(Found("right", (1.0, 2.0)), Found("right", (1.0, 3.0)))
    assert not dominates(Found("right", (1.0, 2.0)), Found("right", (0.9, 3.0)))

"""The memory of one search: an Optuna study in a journal, so that a killed search goes on where it was.

A study belongs to what decides its answers (model, samples, space, policy, tools, hardware: its key), so a second
identical registration finds the study ended and repeats nothing. Choices are asked one by one: first the ladder and
what served earlier models of the same operators, then the sampler. A choice that was tried is never tried again.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from compilers.search.space import Choice, Space
from model_store.policy import Policy

GRID_MOST, RANDOM_BELOW, STARTUP = 40, 20, 8
"""Spaces up to 40 are walked whole; fewer than 20 trials cannot teach a model; TPE begins after 8."""

ASK_AGAIN = 30
"""A sampler that suggests this often what was tried has nothing new to say."""

State = Literal["right", "wrong", "open", "slow", "failed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A choice to try, with `without` the number of most sensitive nodes left in float."""

    number: int
    choice: dict[str, Any]
    without: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a trial came to: right (passed the gate), wrong, open (too few samples), slow (not asked), or failed.

    `violation`: how far beyond the gate, negative inside; `values`: of the objectives, smaller is better; `ratio`: the
    speed-up together with what serves (`faster`: it may add to that); `model`, `structure`: digests that tell twins.
    """

    state: State
    values: tuple[float, ...] = ()
    violation: float = 0.0
    model: str = ""
    structure: str = ""
    ratio: float = 0.0
    faster: bool = False
    words: str = ""


@dataclass(frozen=True, slots=True)
class Tried:
    choice: dict[str, Any]
    without: int
    found: Found
    number: int = field(default=0, compare=False)


class Study:
    """Ask for a trial, tell what was found. One process at a time works on a study (the job's lease sees to it)."""

    def __init__(self, journal: Path, space: Space, policy: Policy, warm: Sequence[Choice] = ()) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._optuna = optuna
        self.space = space
        self._policy = policy
        self._asked: dict[int, Any] = {}
        self._objectives = 1 if policy.second_objective is None else 2
        journal.parent.mkdir(parents=True, exist_ok=True)
        _mend(journal)
        lock: Any = _Lock(journal.with_suffix(".lock"))
        backend = JournalFileBackend(str(journal), lock_obj=lock)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name="search",
                directions=["minimize"] * self._objectives,
                load_if_exists=True,
            )
        self._study.sampler = self._sampler()
        self._interrupted = self._resume()
        if "warm" not in self._study.user_attrs:  # a later start knows more models: it would not go on, but begin again
            self._study.set_user_attr("warm", [dict(choice) for choice in warm if space.holds(choice)])
        self._first = [*self._study.user_attrs["warm"], *(space.whole(part) for part in space.ladder)]

    @property
    def ended(self) -> str | None:
        """Why the search ended; None while it goes on."""
        return self._study.user_attrs.get("ended")

    def end(self, why: str) -> None:
        self._study.set_user_attr("ended", why)

    def tried(self) -> list[Tried]:
        """Every trial that came to something, in order."""
        return [
            Tried(
                trial.user_attrs["choice"], trial.user_attrs["without"], _found(trial.user_attrs["found"]), trial.number
            )
            for trial in self._study.get_trials(deepcopy=False)
            if "found" in trial.user_attrs and not trial.user_attrs.get("twin")
        ]

    def ask(self) -> Trial | None:
        """The next choice that was never tried; None when the space, or the sampler, has no more.

        First what a kill interrupted, then what served earlier models, the ladder, and then the sampler's.
        """
        seen = {_key(tried.choice, tried.without): tried.found for tried in self.tried()}
        while self._interrupted:
            choice, without = self._interrupted.pop(0)
            if _key(choice, without) not in seen:
                return self._fixed(choice, without)
        for choice in self._first:
            if _key(choice, 0) not in seen:
                return self._fixed(choice)
        if self.space.size <= sum(1 for _, without in seen if without == 0):
            return None
        if sampler_for(self._policy, self.space.size) == "grid":
            return self._fixed(self._next_of_grid(seen))
        return self._sampled(seen)

    def ask_for(self, choice: Choice, without: int = 0) -> Trial | Found:
        """A given choice as a trial; what was found when it was tried before."""
        for tried in self.tried():
            if _key(tried.choice, tried.without) == _key(choice, without):
                return tried.found
        return self._fixed(choice, without)

    def tell(self, trial: Trial, found: Found) -> None:
        self._tell(self._asked.pop(trial.number), found)

    def _tell(self, trial: Any, found: Found) -> None:
        trial.set_user_attr("found", asdict(found))
        if len(found.values) != self._objectives:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return
        trial.set_constraint("gate", found.violation)
        self._study.tell(trial, list(found.values))

    def _fixed(self, choice: Choice, without: int = 0) -> Trial:
        self._study.enqueue_trial({knob.name: knob.values.index(choice[knob.name]) for knob in self.space.knobs})
        trial, chosen = self._draw()
        assert _key(chosen, 0) == _key(choice, 0), (chosen, choice)
        return self._handed_out(trial, chosen, without)

    def _sampled(self, seen: Mapping[tuple[str, int], Found]) -> Trial | None:
        for _ in range(ASK_AGAIN):
            trial, choice = self._draw()
            if (known := seen.get(_key(choice, 0))) is None:
                return self._handed_out(trial, choice, 0)
            # Told again, so that the sampler learns that there is nothing to gain here.
            trial.set_user_attr("twin", True)
            self._tell(trial, known)
        return None

    def _draw(self) -> tuple[Any, dict[str, Any]]:
        trial = self._study.ask()
        places = {knob.name: trial.suggest_categorical(knob.name, range(len(knob.values))) for knob in self.space.knobs}
        return trial, {knob.name: knob.values[places[knob.name]] for knob in self.space.knobs}

    def _handed_out(self, trial: Any, choice: dict[str, Any], without: int) -> Trial:
        trial.set_user_attr("choice", choice)
        trial.set_user_attr("without", without)
        self._asked[trial.number] = trial
        return Trial(trial.number, choice, without)

    def _next_of_grid(self, seen: Collection[tuple[str, int]]) -> dict[str, Any]:
        """The first choice not seen, in an order shuffled by the seed (so that a budget cuts off no one knob)."""
        names, values = [knob.name for knob in self.space.knobs], [knob.values for knob in self.space.knobs]
        grid = [dict(zip(names, row, strict=True)) for row in itertools.product(*values)]
        random.Random(self._policy.search.seed).shuffle(grid)
        return next(choice for choice in grid if _key(choice, 0) not in seen)

    def _resume(self) -> list[tuple[dict[str, Any], int]]:
        """What was being tried when a search was killed: to be tried first, as its finished steps are not repeated."""
        states, interrupted = self._optuna.trial.TrialState, []
        while any(trial.state == states.WAITING for trial in self._study.get_trials(deepcopy=False)):
            self._study.tell(self._study.ask(), state=states.FAIL)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == states.RUNNING:
                self._study.tell(trial.number, state=states.FAIL)
                if "choice" in trial.user_attrs:
                    interrupted.append((trial.user_attrs["choice"], trial.user_attrs["without"]))
        return interrupted

    def _sampler(self) -> Any:
        """Grid when the space is small, random when trials are few, NSGA-II for two objectives, TPE otherwise."""
        samplers, policy = self._optuna.samplers, self._policy
        # A resumed search draws on: the same seed again would only suggest what was tried.
        seed = (policy.search.seed + len(self._study.get_trials(deepcopy=False))) % (1 << 32)
        match sampler_for(policy, self.space.size):
            case "grid" | "random":  # the grid is walked by `_next_of_grid`
                return samplers.RandomSampler(seed=seed)
            case "nsga2":
                return samplers.NSGAIISampler(population_size=STARTUP, seed=seed)
        return samplers.TPESampler(n_startup_trials=STARTUP, seed=seed)  # multivariate, always, since Optuna 5


def sampler_for(policy: Policy, size: int) -> str:
    """What `auto` means for a space of `size` choices."""
    if policy.search.sampler != "auto":
        return policy.search.sampler
    if policy.second_objective is not None:
        return "nsga2"
    if size <= GRID_MOST:
        return "grid"
    return "random" if policy.budget_trials < RANDOM_BELOW else "tpe"


def _found(kept: Any) -> Found:
    return msgspec.convert(kept, Found)


def _key(choice: Choice, without: int) -> tuple[str, int]:
    return msgspec.json.encode(dict(choice), order="sorted").decode(), without


def _mend(journal: Path) -> None:
    """Cut off a line that a killed process left half written: everything before it is whole."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)


class _Lock:
    """A lock the kernel lets go of with its process: Optuna's own outlives a kill by half a minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def acquire(self) -> bool:
        self._held = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

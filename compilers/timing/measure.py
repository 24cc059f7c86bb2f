"""Timing of a variant against the reference: in turns, in the same minutes, each in a child of its own.

Two engines in one process would steal each other's cores (an idle session's threads may spin), and a machine is never
quiet: so both live through the same noise in short rounds, A B, B A, ..., and the interval of the ratio comes from
resampling whole rounds, the quieter half of them. Only the ratio is claimed; a win is one whose lower end exceeds WIN.

Rounds go on while they can still change what is claimed: until a win is known to within 2 %, or until a win is out of
the question (`lost`). Looking often at growing evidence finds what is not there, so a look that ends it asks for odds
of a thousand to one (Haybittle 1971, Peto et al. 1976); and what it can wrongly give up is a gain, never a proof.

Each is timed as it is planned to run: with its threads, and as many batches at a time as it has instances. What counts
is then the time of a batch among the others or, where throughput is asked for, the time a batch adds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from compilers.intervals import at_most, ratio_of_medians
from model_store.entities import Timing
from model_store.sandbox import signal_name

WIN = 1.03
WARM_SECONDS = 0.4
ROUND_NS = 10_000_000
MOST_RUNS = 2000
LEAST_ROUNDS = 6
"""Six rounds that all favour one side happen by chance once in 64: fewer could not carry a 95 % interval."""
SETTLED_ROUNDS, SETTLED_WIDTH = 30, 0.02
WITHOUT_GAIN = 0.25
SUBLINEAR = 0.5
"""No batch takes less than this part of what its rows would by the size before: then it need not be tried at all."""
LOST_ROUNDS, LOST_BY_CHANCE = 12, 0.001
LOOK_ROUNDS = 6
"""So many rounds from one look at them to the next."""

Params = Mapping[str, Any]


class Untimeable(Exception):
    """One of the two was refused by its runtime while being timed."""


class Died(Exception):
    """The child of one of the two ended on its own; the text says how."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`skipped`: batch sizes whose rounds would not fit into `most_seconds`."""

    timings: tuple[Timing, ...]
    skipped: tuple[int, ...]
    variant_memory_bytes: int


def measure(params: Params, inputs: Mapping[str, Path]) -> Measured:
    """Time `params["variant"]` against `params["reference"]` at every batch size. Raises Untimeable, Died.

    `seconds` are shared by the batch sizes; a slow model takes up to `most_seconds` at each for the least rounds, and
    up to WITHOUT_GAIN of that where the variant gained nothing at the batch sizes before.
    """
    rows: Sequence[int] = params["rows"] if params["rowwise"] else (1,)
    with Stopwatch("reference", params, inputs) as reference, Stopwatch("variant", params, inputs) as variant:
        timings: list[Timing] = []
        skipped: list[int] = []
        for bucket in rows:
            share = params["seconds"] / len(rows)
            limit = params["most_seconds"] if timings or skipped else float("inf")
            if timings and not wins(timings):
                limit *= WITHOUT_GAIN
                foreseen = (timings[-1].reference_p50_s + timings[-1].p50_s) * bucket / timings[-1].rows
                if LEAST_ROUNDS * foreseen * SUBLINEAR > limit:
                    skipped.append(bucket)
                    continue
            found = _bucket(reference, variant, bucket, share, limit, params.get("by", "latency"))
            if found is None:
                skipped.append(bucket)
            else:
                timings.append(found)
        return Measured(tuple(timings), tuple(skipped), variant.peak_memory_bytes)


@dataclass(frozen=True, slots=True)
class Round:
    """Neighbours in time: what each run took and, of several callers at once, all of them together (nanoseconds)."""

    ns: list[int]
    wall_ns: int

    @property
    def pace_ns(self) -> float:
        """The time in which one more batch is answered."""
        return self.wall_ns / len(self.ns)


class Stopwatch:
    """A child process that times one artifact; see compilers.timing.stopwatch for what is said on its pipes.

    `params[side]` says what to open, with how many threads and instances (else `params["threads"]`, and one).
    """

    def __init__(self, side: str, params: Params, inputs: Mapping[str, Path], name: str = "") -> None:
        self.side = side
        self.peak_memory_bytes = 0
        request = Path(f"{name or side}.json")
        shared = {key: params[key] for key in ("threads", "signature", "guess", "rowwise") if key in params}
        request.write_bytes(msgspec.json.encode(shared | params[side]))
        prefix = f"{side}/"
        named = {
            f"artifact/{name.removeprefix(prefix)}": path for name, path in inputs.items() if name.startswith(prefix)
        }
        named |= {"samples": inputs["samples"]} if "samples" in inputs else {}
        arguments = [str(request), *(f"{name}={path}" for name, path in named.items())]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "compilers.timing.stopwatch", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Stopwatch:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def warm_up(self, rows: int, seconds: float = WARM_SECONDS) -> float:
        """Returns what a run takes, in nanoseconds."""
        return float(np.median(self._ask(rows=rows, warm_s=seconds).ns))

    def run(self, rows: int, runs: int) -> Round:
        """`runs` runs of every instance, all instances at once."""
        return self._ask(rows=rows, runs=runs)

    def mix(self, sizes: Sequence[int]) -> Round:
        """One run of each batch size, in this order, one at a time."""
        return self._ask(mix=list(sizes))

    def _ask(self, **message: Any) -> Round:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(msgspec.json.encode(message) + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise Died(self._end()) from None
        answer = self._listen()
        self.peak_memory_bytes = answer["peak_memory_bytes"]
        return Round(answer["ns"], answer["wall_ns"])

    def _listen(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise Died(self._end())
        answer: dict[str, Any] = msgspec.json.decode(line)
        if "refused" in answer:
            raise Untimeable(f"the {self.side} failed while being timed: {answer['refused']}")
        return answer

    def _end(self) -> str:
        code = self._child.wait()
        how = f"crashed with {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return f"the {self.side} {how} while being timed"


def wins(timings: Sequence[Timing]) -> tuple[Timing, ...]:
    """The batch sizes at which the variant is proven faster."""
    return tuple(timing for timing in timings if timing.speedup_lower > WIN)


def _bucket(
    reference: Stopwatch, variant: Stopwatch, rows: int, seconds: float, most_seconds: float, by: str
) -> Timing | None:
    """None when the least rounds would take longer than `most_seconds`."""
    sides = (reference, variant)
    typical = [side.warm_up(rows) for side in sides]
    if LEAST_ROUNDS * sum(typical) / 1e9 > most_seconds:
        return None
    runs = [max(1, min(MOST_RUNS, round(ROUND_NS / took))) for took in typical]
    rounds: tuple[list[Round], list[Round]] = ([], [])
    figures: tuple[list[float], list[float]] = ([], [])
    started = time.monotonic()
    while len(rounds[0]) < LEAST_ROUNDS or (time.monotonic() - started < seconds and not _decided(*figures)):
        for which in (0, 1) if len(rounds[0]) % 2 == 0 else (1, 0):
            done = sides[which].run(rows, runs[which])
            rounds[which].append(done)
            figures[which].append(done.pace_ns if by == "throughput" else float(np.median(done.ns)))
    times = ([each.ns for each in rounds[0]], [each.ns for each in rounds[1]])
    return timing(rows, *times, *(figures if by == "throughput" else ()))


def timing(
    rows: int,
    reference: Sequence[Sequence[int]],
    variant: Sequence[Sequence[int]],
    reference_paces: Sequence[float] = (),
    variant_paces: Sequence[float] = (),
) -> Timing:
    """Sum up rounds of durations in nanoseconds, `reference[i]` and `variant[i]` being neighbours in time.

    The speed-up is that of the medians or, where paces are given (nanoseconds that a batch adds, a round), of those.
    Only the quieter half of the rounds counts: a machine busy with other things slows some engines far more than
    others (threads that wait for one another most), and a gain that only busy rounds show is none.
    """
    medians = [np.array([np.median(each) for each in side]) / 1e9 for side in (reference, variant)]
    compared = [np.asarray(side) / 1e9 for side in (reference_paces, variant_paces)] if reference_paces else medians
    quiet = quieter_half(*compared)
    medians, compared = [side[quiet] for side in medians], [side[quiet] for side in compared]
    ours = np.concatenate([np.asarray(variant[i], dtype=np.float64) for i in quiet]) / 1e9
    speedup, lower, upper = ratio_of_medians(*compared)
    # The quietest quarter must say the same: the half may still hold rounds that were disturbed.
    quietest = [np.percentile(side, 25) for side in compared]
    lower = min(lower, float(quietest[0] / quietest[1]))
    p50 = float(np.median(medians[1]))
    return Timing(
        rows=rows,
        p50_s=p50,
        p90_s=max(p50, float(np.percentile(ours, 90))),
        p99_s=max(p50, float(np.percentile(ours, 99))),
        reference_p50_s=float(np.median(medians[0])),
        speedup=speedup,
        speedup_lower=lower,
        speedup_upper=upper,
        runs=len(ours),
    )


def quieter_half(reference: np.ndarray, variant: np.ndarray) -> np.ndarray:
    """Indices, in order, of the rounds that were least disturbed on both sides together; at least LEAST_ROUNDS."""
    disturbed = reference / np.median(reference) * (variant / np.median(variant))
    kept = np.argsort(disturbed, kind="stable")[: max(LEAST_ROUNDS, len(disturbed) // 2)]
    return np.sort(kept)


def _decided(reference: Sequence[float], variant: Sequence[float]) -> bool:
    """Whether more rounds would change nothing that is claimed; asked of what is compared, round by round."""
    if len(reference) % LOOK_ROUNDS:
        return False
    sides = np.asarray(reference), np.asarray(variant)
    return lost(*sides) or _settled(*sides)


def lost(reference: np.ndarray, variant: np.ndarray) -> bool:
    """True when so few rounds show a win that one which there is would do so once in a thousand times (sign test)."""
    won = int((reference > WIN * variant).sum())
    return len(reference) >= LOST_ROUNDS and at_most(won, len(reference)) < LOST_BY_CHANCE


def _settled(reference: np.ndarray, variant: np.ndarray) -> bool:
    """True when more rounds would hardly narrow the interval."""
    if len(reference) < SETTLED_ROUNDS:
        return False
    speedup, lower, upper = ratio_of_medians(reference, variant)
    return (upper - lower) / speedup < SETTLED_WIDTH

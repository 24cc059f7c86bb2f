"""What a variant does on this machine under every setting worth trying: the measuring behind a plan.

Every setting is open in a child of its own, and all are asked in turns, back and forth, so that they live through the
same noise. Then the setting that was chosen is asked at more batch sizes, these in turns too, to see where more rows
stop to pay and whether filling batches up does.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from compilers.intervals import ratio_of_medians
from compilers.timing import plan
from compilers.timing.measure import (
    LEAST_ROUNDS,
    LOOK_ROUNDS,
    MOST_RUNS,
    ROUND_NS,
    SUBLINEAR,
    WIN,
    Died,
    Params,
    Round,
    Stopwatch,
    Untimeable,
)
from compilers.timing.plan import Curve, Rounds, Setting
from model_store.entities import Plan, PlanPoint

WARM_S = 0.2
MOST_ROUNDS = 40
KNOWN_ROUNDS, KNOWN_WIDTH = 12, 0.05
"""Rounds end when every side's ratio to the first is known to within 5 %: what pays is a matter of tenths."""
SHARES = (0.6, 0.25, 0.15)
"""Of the seconds: for the settings, for the batch sizes of the chosen one, for filling up."""
MIXED = 4
"""Batch sizes below a bucket that stand for all of them."""

Side = TypeVar("Side", bound=Hashable)


def measured_plan(params: Params, inputs: Mapping[str, Path]) -> Plan:
    """The plan of `params["variant"]` for `params["objective"]`. Raises Untimeable, Died when nothing opens it.

    `settings`: threads and instances, the simplest first; one of them that cannot be opened is left out.
    `seconds` are shared; a batch size whose least rounds take more than `most_seconds` is left out, never the first.
    """
    with contextlib.ExitStack() as opened:
        watches = _open(params, inputs, opened)
        rows: Sequence[int] = params["rows"] if params["rowwise"] else (1,)
        curves = _curves(watches, rows, params["seconds"] * SHARES[0], params["most_seconds"])
        chosen = plan.choose(curves, params["objective"])
        watch = watches[chosen]
        curve = _between(watch, list(curves[chosen]), params["seconds"] * SHARES[1], params["most_seconds"])
        shape = plan.points(chosen, curve)
        paying = plan.buckets(shape)
        # Where measuring ended before gains did, nothing is known of larger batches: no bucket bounds them then.
        ended = len(curves[chosen]) < len(rows) or (params["rowwise"] and len(shape) == 1)
        kept = () if ended and paying[-1] == shape[-1].rows else paying
        padded = _padded(watch, shape, kept, params["seconds"] * SHARES[2], params["most_seconds"])
    others = tuple(
        point for setting, other in curves.items() if setting != chosen for point in plan.points(setting, other)
    )
    return Plan(
        threads=chosen.threads,
        max_rows=rows[-1],
        instances=chosen.instances,
        buckets=kept,
        padded=padded,
        objective=params["objective"],
        reason=plan.reason(curves, chosen, paying, padded),
        curve=(*shape, *others),
    )


def _open(params: Params, inputs: Mapping[str, Path], opened: contextlib.ExitStack) -> dict[Setting, Stopwatch]:
    """A stopwatch for each setting. The simplest must open; another may be too much for the memory there is."""
    starting: dict[Setting, Stopwatch] = {}
    for each in params["settings"]:
        setting = Setting(**each)
        asked = {**params, "variant": params["variant"] | each}
        name = f"variant-{setting.threads}x{setting.instances}"
        starting[setting] = opened.push(Stopwatch("variant", asked, inputs, name))
    watches: dict[Setting, Stopwatch] = {}
    for setting, watch in starting.items():
        try:
            watches[setting] = watch.__enter__()
        except (Untimeable, Died):
            if not watches:
                raise
    return watches


def _curves(
    watches: Mapping[Setting, Stopwatch], rows: Sequence[int], seconds: float, most_seconds: float
) -> dict[Setting, Curve]:
    curves: dict[Setting, dict[int, Rounds]] = {setting: {} for setting in watches}
    foreseen = 0.0
    for previous, size in zip((rows[0], *rows), rows, strict=False):
        if size != previous and LEAST_ROUNDS * foreseen * size / previous * SUBLINEAR > most_seconds:
            break
        took = {setting: watch.warm_up(size, WARM_S) for setting, watch in watches.items()}
        foreseen = sum(took.values()) / 1e9
        if size != rows[0] and LEAST_ROUNDS * foreseen > most_seconds:
            break
        runs = {setting: _runs(each) for setting, each in took.items()}
        asks = {setting: _asker(watch, size, runs[setting]) for setting, watch in watches.items()}
        for setting, rounds in _in_turns(asks, seconds / len(rows)).items():
            curves[setting][size] = rounds
    return dict(curves)


def _between(watch: Stopwatch, rows: Sequence[int], seconds: float, most_seconds: float) -> dict[int, Rounds]:
    """The chosen setting at the powers of two between as well, as far as the time allows; all of them in turns."""
    doubled = {1 << bit for bit in range(rows[-1].bit_length()) if rows[0] < 1 << bit < rows[-1]}
    took = {size: watch.warm_up(size, WARM_S) for size in rows}
    more = sorted(doubled - set(rows))
    slowest = max(took[size] / size for size in rows)
    if LEAST_ROUNDS * (sum(took.values()) + slowest * sum(more)) / 1e9 <= most_seconds:
        took |= {size: watch.warm_up(size, WARM_S) for size in more}
    asks = {size: _asker(watch, size, _runs(took[size])) for size in sorted(took)}
    return _in_turns(asks, seconds)


def _padded(
    watch: Stopwatch, shape: Sequence[PlanPoint], kept: Sequence[int], seconds: float, most_seconds: float
) -> tuple[int, ...]:
    """The buckets to which filling up is proven faster than running batches of the sizes below as they come.

    Sizes change from batch to batch, as they do in service: some runtimes prepare themselves anew for each.
    """
    took_s = {point.rows: point.p50_s for point in shape}
    found = []
    for below, bucket in itertools.pairwise(kept):
        sizes = sorted({bucket - 1, *(below + (bucket - below) * part // MIXED for part in range(1, MIXED))})
        sizes = [size for size in sizes if below < size < bucket]
        if not sizes or 2 * LEAST_ROUNDS * len(sizes) * took_s[bucket] > most_seconds:
            continue
        watch.mix([*sizes, bucket])
        asks = {exact: _mixer(watch, sizes if exact else [bucket] * len(sizes)) for exact in (True, False)}
        rounds = _in_turns(asks, seconds / len(kept))
        if plan.compared(rounds[True].pace_s, rounds[False].pace_s).lower > WIN:
            found.append(bucket)
    return tuple(found)


def _in_turns(asks: Mapping[Side, Callable[[], Round]], seconds: float) -> dict[Side, Rounds]:
    """Ask all of them, forth and back, until the seconds are over and the least rounds are done, or all is known."""
    took_s: dict[Side, list[float]] = {side: [] for side in asks}
    pace_s: dict[Side, list[float]] = {side: [] for side in asks}
    order, count, started = list(asks), 0, time.monotonic()
    while count < LEAST_ROUNDS or (
        count < MOST_ROUNDS
        and time.monotonic() - started < seconds
        and not (_known(list(took_s.values())) and _known(list(pace_s.values())))
    ):
        for side in order if count % 2 == 0 else reversed(order):
            done = asks[side]()
            took_s[side].append(float(np.median(done.ns)) / 1e9)
            pace_s[side].append(done.pace_ns / 1e9)
        count += 1
    return {side: Rounds(took_s[side], pace_s[side]) for side in asks}


def _known(sides: Sequence[Sequence[float]]) -> bool:
    first, *others = (np.asarray(side) for side in sides)
    if len(first) < KNOWN_ROUNDS or len(first) % LOOK_ROUNDS:
        return False
    found = (ratio_of_medians(first, other) for other in others)
    return all((upper - lower) / ratio < KNOWN_WIDTH for ratio, lower, upper in found)


def _asker(watch: Stopwatch, rows: int, runs: int) -> Callable[[], Round]:
    return lambda: watch.run(rows, runs)


def _mixer(watch: Stopwatch, sizes: Sequence[int]) -> Callable[[], Round]:
    return lambda: watch.mix(sizes)


def _runs(took_ns: float) -> int:
    return max(1, min(MOST_RUNS, round(ROUND_NS / took_ns)))

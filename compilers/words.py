"""Verdicts in words: the reason every variant carries, with the numbers, for a person.

3.1x at 1 row (at least 2.9x), 3.4x at 8; cosine 0.9996, top-1 agreement 99.7 % (at least 99.0 %) on 700 samples
not faster: 0.71x at 1 row, 0.80x at 8; 31 of 54 Conv stayed in float; cosine 0.9991 on 700 samples
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from compilers.timing.measure import WIN, wins
from model_store.entities import Timing, Verdict

NO_SAMPLES = "no samples to prove it right on; register the model with samples and it will be judged"
NO_SAMPLES_TO_CALIBRATE = "no samples to calibrate on, so it was not built; register the model with samples"


def not_tried(budget_seconds: float) -> str:
    return f"not tried: the budget of {budget_seconds:g} s was spent before its turn"


def reason(
    verdict: Verdict,
    judged: str,
    timings: Sequence[Timing],
    quantized: Mapping[str, Sequence[int]],
    untimed: Sequence[int] = (),
) -> str:
    """`quantized`: node kind -> (how many there are, how many compute on quantized tensors). `untimed`: batch sizes."""
    slowly = "too slow to time" if wins(timings) or not timings else "too slow to time for want of a gain"
    measured = speed(timings) + "".join(f", {rows} {slowly}" for rows in untimed)
    if verdict is Verdict.SERVING:
        return f"{measured}; {judged}"
    if verdict is Verdict.INCONCLUSIVE:
        return f"{judged}; measured {measured}"
    slow = max((timing.speedup for timing in timings), default=0.0) <= WIN
    found = f"not faster: {measured}" if slow else f"not proven faster than {WIN}x: {measured}"
    return "; ".join(part for part in (found, left_in_float(quantized), judged) if part)


def speed(timings: Sequence[Timing]) -> str:
    """Ratios by batch size; the lower end of the interval beside the first that wins, or beside each that does not."""
    if not timings:
        return "no times"
    winning = wins(timings)
    told = []
    for timing in timings:
        at = f"{times(timing.speedup)} at {timing.rows}" + (" row" * (timing is timings[0] and timing.rows == 1))
        if winning and timing is winning[0]:
            at += f" (at least {times(timing.speedup_lower)})"
        elif not winning:
            at += f" ({times(timing.speedup_lower)} to {times(timing.speedup_upper, up=True)})"
        told.append(at)
    return ", ".join(told)


def times(value: float, *, up: bool = False) -> str:
    """3.1x, 0.97x: two figures, rounded down (an upper end: up), so that words claim no more than was measured."""
    places = 2 if value < 1.1 else 1
    scaled = value * 10**places
    return f"{(math.ceil(scaled - 1e-6) if up else math.floor(scaled + 1e-6)) / 10**places:.{places}f}x"


def left_in_float(quantized: Mapping[str, Sequence[int]]) -> str:
    """Why an int8 model may be slow: "31 of 54 Conv stayed in float"; empty when nothing was quantized, or all was."""
    if not any(done for _, done in quantized.values()):
        return ""
    return ", ".join(
        f"{total - done} of {total} {kind} stayed in float" for kind, (total, done) in quantized.items() if done < total
    )

"""How many of a ranking must be left out: doubled until it is enough, then bisected, never one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Answer = Literal["enough", "not enough", "no use"]


def fewest(most: int, ask: Callable[[int], Answer]) -> tuple[int | None, int]:
    """The fewest of 1 to `most` that are enough, and the most that were not (0 where even one is).

    None: none is, or so many had to be left out that it is of no use (too slow, say). Asks about 2 log2(answer) times;
    it takes for granted that leaving out more is never worse.
    """
    low, high = 0, 1
    passed: int | None = None
    while high <= most:
        answer = ask(high)
        if answer != "not enough":
            passed = high if answer == "enough" else None
            break
        low, high = high, max(high + 1, min(2 * high, most))
    while passed is not None and passed - low > 1:
        middle = (low + passed) // 2
        if ask(middle) == "enough":
            passed = middle
        else:
            low = middle
    return passed, low

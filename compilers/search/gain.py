"""What counts as a gain in a search, and how long there was none."""

from __future__ import annotations

from collections.abc import Sequence

from compilers.search.study import Found, Tried

GAIN = 0.97
"""What must be left of a time for it to count as a gain: the same 3 % as in the timing of variants."""


def since_gain(tried: Sequence[Tried]) -> int:
    """Trials since one was better than all before: less beyond the gate, or inside it by 3 % less of the objective."""
    best: Found | None = None
    count = 0
    for each in tried:
        count += 1
        if each.found.values and (best is None or _gains(each.found, best)):
            best, count = each.found, 0
    return count


def _gains(found: Found, best: Found) -> bool:
    if (found.state == "right") != (best.state == "right"):
        return found.state == "right"
    if found.state == "right":
        return any(mine < GAIN * its for mine, its in zip(found.values, best.values, strict=True))
    return found.state in ("wrong", "open") and found.violation < best.violation - 0.05


def dominates(one: Found, other: Found) -> bool:
    """As good in every objective and better in one."""
    pairs = list(zip(one.values, other.values, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

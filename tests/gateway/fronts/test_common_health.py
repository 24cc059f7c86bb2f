"""Deaths count wherever they were seen, and are known to a process that begins later."""

from __future__ import annotations

from gateway.fronts.health import CommonHealth
from gateway.routing.health import Subject

KILLER, OTHER = Subject("m", "1", "killer"), Subject("m", "1", "other")


def test_one_death_here_and_one_there_set_a_variant_aside_in_both():
    told: list[tuple[Subject, str]] = []
    here = CommonHealth(lambda subject, cause: there.heard(subject, cause))
    there = CommonHealth(lambda subject, cause: told.append((subject, cause)) or here.heard(subject, cause))
    here.died(KILLER, "segv")
    assert not here.quarantined(KILLER) and not there.quarantined(KILLER)
    there.died(KILLER, "oom")
    assert here.quarantined(KILLER) and there.quarantined(KILLER)
    assert told == [(KILLER, "oom")]  # what was heard is not told again
    assert not here.quarantined(OTHER)


def test_a_process_that_begins_later_sets_aside_what_the_others_did():
    one = CommonHealth(lambda *_: None)
    for cause in ("segv", "segv"):
        one.died(KILLER, cause)
    one.died(OTHER, "hang")
    later = CommonHealth(lambda *_: None)
    for subject, cause in one.recent():
        later.heard(subject, cause)
    assert later.quarantined(KILLER) and not later.quarantined(OTHER)
    assert later.words(OTHER).startswith("killed a runner")

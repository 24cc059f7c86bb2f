"""Counts in shared memory: read while they change, kept when their writer is killed, dropped with their version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from gateway.fronts.ledger import Ledger
from gateway.routing.health import Subject
from gateway.statistics import Failure, Key, Statistics

MODEL = Subject("m", "1", "reference")


def count(statistics: Statistics, times: int = 1, subject: Subject = MODEL) -> None:
    for _ in range(times):
        counts = statistics.counts(subject, "ort-cpu")
        counts.ran(3, "only", 1_000, 2_000_000, 3_000)
        counts.answered(3, 9_000_000, 1, 2, 1_000, 2_000_000, 3_000, 4)
        statistics.failed(subject.model, subject.version, 503, "deadline", 7)
        statistics.happened("shed", "queue_full")


def facts(statistics: Statistics) -> dict[Any, Any]:
    """Everything that is counted, as plain numbers."""
    found: dict[Any, Any] = {}
    for key, counts in statistics.by_variant.items():
        stages = {name: list(getattr(counts, name).cells) for name in ("request", "queue", "infer", "decode", "encode")}
        batches = {rows: list(cells) for rows, cells in counts.batches.items()}
        found[key] = (stages, list(counts.sums[:3]), batches, {why: cells[0] for why, cells in counts.why.items()})
    found |= {failure: list(cells) for failure, cells in statistics.failures.items()}
    found |= {event: cells[0] for event, cells in statistics.events.items()}
    return found


def test_a_reader_sees_every_count_as_soon_as_it_is_made():
    ledger = Ledger.create(1 << 20)
    reader = Ledger(os.dup(ledger.fd))
    writing, plain = Statistics(cells=ledger), Statistics()
    for times in (0, 1, 5):
        count(writing, times)
        count(plain, times)
        assert facts(reader.statistics()) == facts(plain)
    another = Subject("m", "2", "int8")
    count(writing, 2, another)
    count(plain, 2, another)
    writing.counts(MODEL, "ort-cpu").ran(4, "pinned", 1, 1, 1)
    plain.counts(MODEL, "ort-cpu").ran(4, "pinned", 1, 1, 1)
    assert facts(reader.statistics()) == facts(plain)


def test_what_was_counted_before_a_kill_is_still_there():
    ledger = Ledger.create(1 << 20)
    program = (
        "import os, signal, sys\n"
        "from gateway.fronts.ledger import Ledger\n"
        "from gateway.statistics import Statistics\n"
        "from tests.gateway.fronts.test_ledger import count\n"
        f"count(Statistics(cells=Ledger({ledger.fd})), 1000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], pass_fds=(ledger.fd,), check=False)
    assert ended.returncode == -signal.SIGKILL
    plain = Statistics()
    count(plain, 1000)
    assert facts(ledger.statistics()) == facts(plain)


def test_a_dropped_version_is_not_read_again_and_may_come_back():
    ledger = Ledger.create(1 << 20)
    reader = Ledger(os.dup(ledger.fd))
    writing, plain = Statistics(cells=ledger), Statistics()
    count(writing, 3)
    count(writing, 2, Subject("m", "2", "reference"))
    assert len(reader.statistics().by_variant) == 2
    writing.forget("m", "1")
    assert [key.version for key in reader.statistics().by_variant] == ["2"]
    assert [failure.version for failure in reader.statistics().failures] == ["2"]
    count(writing, 4)
    count(plain, 4)
    key = Key(*MODEL, "ort-cpu")
    assert facts(reader.statistics())[key] == facts(plain)[key]
    assert facts(reader.statistics())["shed", "queue_full"] == 9


def test_a_full_ledger_costs_counts_and_nothing_else(caplog):
    ledger = Ledger.create(4096)
    writing = Statistics(cells=ledger)
    for version in range(20):
        count(writing, 1, Subject("m", str(version), "reference"))
    assert len(writing.by_variant) == 20
    assert 0 < len(ledger.statistics().by_variant) < 20
    assert "counts lost" in caplog.text


def test_counts_of_the_dead_are_added_once_but_not_those_of_versions_that_are_gone():
    ledger = Ledger.create(1 << 20)
    dead = Statistics(cells=ledger)
    count(dead, 5)
    count(dead, 1, Subject("gone", "1", "reference"))
    own, plain = Statistics(), Statistics()
    count(own, 2)
    count(plain, 7)
    plain.happened("shed", "queue_full")
    own.absorb(ledger.statistics(), lambda version: version == ("m", "1"))
    assert facts(own) == facts(plain)
    assert Failure("gone", "1", 503, "deadline") not in own.failures

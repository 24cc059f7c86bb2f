"""A few hundred requests made from the schema; `make fuzz` sends ten thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import fuzz
from tests.clients.models import serving

pytestmark = [
    pytest.mark.skipif(not fuzz.SCHEMATHESIS.exists(), reason="the clients' environment is missing: make clients"),
    pytest.mark.timeout(240),
]


def test_requests_from_the_schema_find_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, "--shared-memory", names=fuzz.NAMES) as gateway:
        outcome = fuzz.fuzz(gateway, tmp_path, examples=8, seed=7, phases="fuzzing")
        assert not outcome.failed, outcome.report
        assert outcome.cases > 200 and outcome.slowest_s < fuzz.TIMEOUT_S
        assert {"200", "400", "404"} <= set(outcome.statuses), outcome.line()
        fuzz.still_answers(gateway)

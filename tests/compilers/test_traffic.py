"""What the gateway tells its worker, and the clock of a budget while compiling makes way."""

from __future__ import annotations

import os

import pytest

from compilers import traffic as module
from compilers.traffic import FLOWS, RESTS, SLOWED, Traffic
from tests.compilers.compiling import wait_until


@pytest.fixture
def told():
    """A worker's traffic, and the pipe on which a gateway tells it."""
    read, write = os.pipe()
    heard = Traffic()
    with os.fdopen(write, "wb", buffering=0) as teller:
        listening = heard.listen(read)
        yield heard, teller
    listening.join(10)
    os.close(read)


def test_a_worker_alone_knows_nothing_of_requests():
    assert Traffic().flows is None


def test_every_word_of_the_gateway_counts_and_its_end_leaves_nobody_to_say(told):
    heard, teller = told
    for word, flows in ((RESTS, False), (FLOWS, True), (RESTS, False), (FLOWS, True)):
        teller.write(word)
        wait_until(lambda flows=flows: heard.flows is flows, 10)
    teller.close()
    wait_until(lambda: heard.flows is None, 10)


def test_a_budget_passes_slower_while_requests_flow(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    traffic = Traffic()
    began = traffic.clock()
    spent = []
    for flows in (None, True, True, False, True, None):
        traffic.told(flows)
        now += 8.0
        spent.append(traffic.clock() - began)
    slow = 8.0 / SLOWED
    assert spent == pytest.approx([8.0, 8 + slow, 8 + 2 * slow, 16 + 2 * slow, 16 + 3 * slow, 24 + 3 * slow])

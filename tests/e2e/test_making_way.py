"""While requests are answered a compilation leaves cores to serving; it has all of them while none are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.networks import mobilenet_v2, smooth_images
from compilers.cores import TIMED
from gateway.client import Client
from gateway.demo.asking import Asking, near
from gateway.demo.process import GatewayProcess
from tests import zoo
from tests.gateways import register_uncompiled

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(300)]

EVERY = frozenset(os.sched_getaffinity(0))
LAST = frozenset(sorted(EVERY)[len(EVERY) // 2 :])


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Two processes: whichever a connection comes to, the one worker must hear of it."""
    with GatewayProcess(tmp_path_factory.mktemp("way") / "data", flags=("--gateways", "2")) as running:
        yield running


def led(gateway: GatewayProcess) -> set[frozenset[int]]:
    """Where the first thread of a compile child that is not timing may run; empty while there is none."""
    found = set()
    for pid in gateway.pids("compilers.steps"):
        try:
            words = set(Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
            if os.sched_getscheduler(pid) == os.SCHED_IDLE and words.isdisjoint(TIMED):
                found.add(frozenset(os.sched_getaffinity(pid)))
        except OSError:
            continue
    return found


def wait_until(holds: Callable[[], bool], patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_compilation_makes_way_while_requests_come_and_only_then(gateway: GatewayProcess) -> None:
    model = zoo.mlp()
    question = zoo.random_inputs(model, rows=1, seed=1)
    samples = zoo.npz(gateway.data.with_name("samples.npz"), image=smooth_images(64, seed=1))
    with Client(gateway.url) as client:
        client.wait("small", register_uncompiled(client, "small", model))
        expected = dict(client.predict("small", question))
        network = mobilenet_v2(seed=time.time_ns() % 1_000_000).SerializeToString()
        # Little time for what times, so that the other steps come often.
        client.register("large", network, samples=samples, policy={"rows": [1], "budget_seconds": 60})
        wait_until(lambda: led(gateway) == {EVERY}, 60)
        with Asking(gateway.url, "small", [question], near([expected]), pause_s=0.05) as account:
            wait_until(lambda: led(gateway) == {LAST}, 60)
        assert (account.failures, account.wrong) == ([], [])
        wait_until(lambda: led(gateway) == {EVERY}, 60)
        client.delete("large")

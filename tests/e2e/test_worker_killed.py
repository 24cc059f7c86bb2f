"""kill -9 of the compile worker: its job is taken up again, no finished step runs twice, nothing half is published."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from gateway.client import Client
from gateway.demo.asking import Asking, near
from gateway.demo.process import WORKER, GatewayProcess
from model_store.fsck import fsck
from model_store.store import ModelStore
from tests import zoo

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(300)]

NAME = "mlp"
POLICY = {
    "targets": ["ort-cpu"], "techniques": ["int8"], "rows": [1, 8], "budget_seconds": 90, "search": {"effort": "off"}
}  # fmt: skip
"""No search: what becomes of one that is killed is asked in tests/compilers/search."""


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("killed") / "data") as running:
        yield running


def finished_steps(client: Client, reused: bool) -> list[tuple[str, str, str]]:
    """(job, step, variant) of every step that was answered by a run of its own, or by an earlier one's result."""
    return [
        (job["id"], event.step, event.data["subject"])
        for job in client.jobs(name=NAME)
        for event in client.events(job["id"], follow=False)
        if event.status == "done" and event.data.get("reused") is reused
    ]


def test_killed_worker_is_replaced_and_its_job_resumes(gateway: GatewayProcess) -> None:
    model = zoo.mlp(hidden=256)
    samples = zoo.random_inputs(model, rows=400, seed=1)
    with Client(gateway.url) as client:
        packed = zoo.npz(gateway.data.with_name("samples.npz"), **samples)
        version = client.register(NAME, model.SerializeToString(), samples=packed, policy=POLICY)["version"]
        question = {"x": samples["x"][:3]}
        expected = reference_answer(client, question)
        with Asking(gateway.url, NAME, [question], near([expected]), pause_s=0.05) as account:
            wait_until(lambda: len(finished_steps(client, reused=False)) >= 4, 60)
            worker = gateway.pids(WORKER)[0]
            os.kill(worker, signal.SIGKILL)
            facts = client.wait(NAME, version, timeout=200)
        jobs, ran, reused = client.jobs(name=NAME), finished_steps(client, False), finished_steps(client, True)
    assert (account.failures, account.wrong) == ([], [])
    assert facts["status"] == "ready"
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert max(job["attempt"] for job in jobs) == 2
    assert [step for step, times in Counter(ran).items() if times > 1] == []
    assert set(reused) & set(ran), "nothing that was finished before the kill was taken over"
    assert all(variant["reason"] for variant in facts["variants"])
    gateway.stop()
    store = ModelStore.open(gateway.data)
    try:
        assert fsck(store).problems == ()
    finally:
        store.close()


def reference_answer(client: Client, question: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    wait_until(lambda: any(v["id"] == "reference" for v in client.version(NAME, "1")["variants"]), 60)
    return dict(client.predict(NAME, question, variant="reference"))


def wait_until(holds: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)

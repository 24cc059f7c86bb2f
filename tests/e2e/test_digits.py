"""A real model end to end: compiled while it is asked without pause, proven, routed, measured, and still there after
its runners were killed. One gateway, in the order in which things happen to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.client import Client
from gateway.demo import digits
from gateway.demo.asking import Account, Asking, Judge, first_answer, near
from gateway.demo.process import RUNNER, GatewayProcess

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(400)]

NAME = "digits"
POLICY = {"techniques": ["int8", "mixed-precision"], "rows": [1, 32], "budget_seconds": 120, "budget_trials": 2}
"""The defaults try more and take longer, and time longer what is tried; the demo walks through them."""


@dataclass
class Served:
    gateway: GatewayProcess
    client: Client
    data: digits.Digits
    version: Mapping[str, Any]
    account: Account
    questions: list[dict[str, np.ndarray]]
    judge: Judge


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Registered with samples, and asked by two clients without pause until the last variant is in."""
    folder = tmp_path_factory.mktemp("digits")
    data = digits.load()
    samples = folder / "samples.npz"
    np.savez(samples, image=data.training.images, labels=data.training.labels)
    gateway = GatewayProcess(folder / "data").start()
    try:
        with Client(gateway.url, timeout=60) as client:
            number = client.register(NAME, digits.MODEL, samples=samples, policy=POLICY)["version"]
            first_answer(client.url, NAME, {"image": data.held_out.images[:1]})
            expected = reference(client, data)
            questions = [{"image": image[None]} for image in data.held_out.images]
            judge = near([{"logits": row[None]} for row in expected])
            with Asking(gateway.url, NAME, questions, judge, threads=2, pause_s=0.01) as account:
                version = client.wait(NAME, number, timeout=300)
                time.sleep(1.5)
            yield Served(gateway, client, data, version, account, questions, judge)
    finally:
        gateway.kill()


def alive(pid: int) -> bool:
    """Running, not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def reference(client: Client, data: digits.Digits) -> np.ndarray:
    parts = np.array_split(data.held_out.images, 25)
    return np.concatenate([client.predict(NAME, {"image": part}, variant="reference")["logits"] for part in parts])


def test_nothing_failed_and_nothing_was_wrong_while_variants_were_published(served: Served) -> None:
    assert served.version["status"] == "ready"
    assert served.account.failures == []
    assert served.account.wrong == []
    assert served.account.asked > 200
    assert served.account.answers["reference"] > 0


def test_every_variant_has_a_verdict_a_reason_and_the_evidence_for_it(served: Served) -> None:
    variants = {variant["id"]: variant for variant in served.version["variants"]}
    assert {"ort-cpu", "openvino-cpu"} == {variant["target"] for variant in variants.values()}
    assert variants["reference"]["verdict"] == "serving"
    assert len(variants) >= 3
    for variant in variants.values():
        assert variant["verdict"] in ("serving", "eligible", "inconclusive", "rejected")
        assert variant["reason"]
        if variant["verdict"] == "serving" and variant["id"] != "reference":
            agreement, timings = variant["evidence"]["agreement"], variant["evidence"]["timings"]
            assert agreement["samples"] >= 100
            assert agreement["cosine"] > 0.9
            assert agreement["label_accuracy"] >= agreement["reference_label_accuracy"] - 0.02
            assert max(timing["speedup_lower"] for timing in timings) > 1.03
            assert variant["evidence"]["hardware"]


def test_served_accuracy_on_held_out_digits_is_that_of_the_reference(served: Served) -> None:
    labels, images = served.data.held_out.labels, served.data.held_out.images
    pinned = reference(served.client, served.data)
    free = np.concatenate([served.client.predict(NAME, {"image": p})["logits"] for p in np.array_split(images, 25)])
    assert (pinned.argmax(1) == labels).mean() >= 0.985
    assert (free.argmax(1) == labels).mean() >= (pinned.argmax(1) == labels).mean() - 0.01


@pytest.mark.parametrize("rows", [1, 32])
def test_route_names_the_variant_that_answers_and_says_why(served: Served, rows: int) -> None:
    images = served.data.held_out.images[:rows]
    answers = [served.client.predict(NAME, {"image": images}) for _ in range(15)]
    route = served.client.route(NAME, rows=rows)
    ((typical, _),) = Counter(answer.variant for answer in answers).most_common(1)  # a rival may be tried now and then
    assert typical == route["variant"]
    assert len(route["why"]) > 20
    assert all(answer.stages for answer in answers)


def test_every_variant_with_an_artifact_can_be_pinned_and_is_right(served: Served) -> None:
    image = served.data.held_out.images[:4]
    expected = served.client.predict(NAME, {"image": image}, variant="reference")["logits"]
    judge = near([{"logits": expected}])
    for variant in served.version["variants"]:
        if variant["verdict"] not in ("serving", "eligible"):
            continue
        answer = served.client.predict(NAME, {"image": image}, variant=variant["id"])
        assert answer.variant == variant["id"]
        assert judge(0, answer) is None


def test_metrics_account_for_every_answer(served: Served) -> None:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(served.client.metrics()):
        for sample in family.samples:
            if sample.labels.get("model") == NAME and sample.labels.get("code", "200") == "200":
                found[sample.name] = found.get(sample.name, 0) + sample.value
    assert found["forgeway_requests_total"] >= served.account.asked
    assert found["forgeway_request_duration_seconds_count"] == found["forgeway_requests_total"]
    assert found["nv_inference_request_success_total"] == found["forgeway_requests_total"]
    assert found["forgeway_inference_duration_seconds_sum"] > 0


def test_gateway_process_holds_no_native_runtime_and_its_runner_does(served: Served) -> None:
    def mapped(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text()

    assert not [word for word in ("/onnxruntime/", "/openvino/", "/onnx/") if word in mapped(served.gateway.pid)]
    assert any("/onnxruntime/" in mapped(pid) for pid in served.gateway.pids(RUNNER))


def test_gateway_and_runners_stay_small_when_idle(served: Served) -> None:
    assert served.gateway.pss_bytes() <= 300 << 20


def test_killed_runners_cost_no_wrong_answer_and_come_back(served: Served) -> None:
    gateway, killed = served.gateway, []
    batch = [{"image": served.data.held_out.images[n : n + 32]} for n in range(0, 96, 32)]
    expected = [{"logits": served.client.predict(NAME, q, variant="reference")["logits"]} for q in batch]
    with Asking(gateway.url, NAME, batch, near(expected), threads=4) as account:
        for _ in range(3):
            time.sleep(1.0)
            victim = gateway.pids(RUNNER)[0]
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        time.sleep(1.0)
    assert gateway.alive
    assert account.wrong == []
    assert [words for words in account.failures if "Unavailable" not in words] == []
    assert sum(account.answers.values()) > 0
    first_answer(served.gateway.url, NAME, served.questions[0])
    assert not set(killed) & set(gateway.pids(RUNNER))
    assert "forgeway_worker_restarts_total" in served.client.metrics()


def test_killed_gateway_leaves_nothing_running_and_serves_again_what_was_proven(served: Served) -> None:
    children = served.gateway.pids()
    served.gateway.kill()
    deadline = time.monotonic() + 10
    while [pid for pid in children if alive(pid)]:
        assert time.monotonic() < deadline, "children outlived the gateway"
        time.sleep(0.05)
    served.gateway.start()
    first_answer(served.gateway.url, NAME, served.questions[0])
    version = served.client.version(NAME, served.version["version"])
    assert version["variants"] == served.version["variants"]
    for variant in version["variants"]:
        if variant["verdict"] == "serving":
            question = served.questions[0]
            answer = served.client.predict(NAME, question, variant=variant["id"])
            assert served.judge(0, answer) is None


def test_stops_cleanly_and_fsck_finds_nothing(served: Served) -> None:
    children = served.gateway.pids()
    served.gateway.stop()
    assert not [pid for pid in children if alive(pid)]
    command = [sys.executable, "-m", "gateway.cli", "fsck", "--data", str(served.gateway.data), "--json"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    report = json.loads(checked.stdout)
    assert report["problems"] == []
    assert report["blobs"] >= 4

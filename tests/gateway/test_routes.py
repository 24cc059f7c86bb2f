"""The management API of a running gateway: its shapes, its refusals, its live log."""

import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from fastapi.openapi.models import OpenAPI

from gateway.routes.accepting import wants_json
from tests.gateways import RunningGateway, wait_until_compiled
from tests.zoo import mlp, npz, random_inputs

POLICY = {"techniques": ["fusion"], "targets": ["ort-cpu"], "rows": [1], "budget_seconds": 60}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("routes") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def http(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def digest(gateway: RunningGateway, http: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model called `small`, compiled: the version as the API shows it."""
    model = mlp(hidden=32)
    samples = npz(tmp_path_factory.mktemp("samples") / "s.npz", **random_inputs(model, 64))
    files = {
        "model": model.SerializeToString(),
        "samples": samples.read_bytes(),
        "policy": json.dumps(POLICY).encode(),
    }
    answer = http.post("/v1/models/small/versions", files=files)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == "/v1/models/small/versions/1"
    accepted = answer.json()
    assert accepted == {"name": "small", "version": "1", "status": "registered", "jobs": accepted["jobs"]}
    assert len(accepted["jobs"]) == 2
    return {**wait_until_compiled(gateway.url, "small"), "jobs": accepted["jobs"]}


def test_a_version_holds_what_the_contract_says(digest: dict[str, Any]) -> None:
    assert (digest["name"], digest["version"], digest["status"]) == ("small", "1", "ready")
    assert digest["signature"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    assert digest["signature"]["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}]
    reference = digest["variants"][0]
    assert (reference["id"], reference["recipe"], reference["verdict"]) == ("reference", "reference", "serving")
    for variant in digest["variants"]:
        assert {"id", "recipe", "target", "techniques", "parameters", "verdict", "reason", "size_bytes"} <= set(variant)
        assert {"agreement", "timings", "hardware"} <= set(variant["evidence"])
        assert variant["reason"]
    tried = [v for v in digest["variants"] if v["id"] != "reference"]
    assert tried and all(v["target"] == "ort-cpu" for v in tried)
    evidence = next(v["evidence"] for v in tried if v["evidence"]["agreement"])
    assert {"sqnr_db", "cosine", "samples"} <= set(evidence["agreement"])
    assert None not in evidence["agreement"].values()
    assert {"rows", "p50_s", "p90_s", "p99_s", "speedup", "speedup_lower"} <= set(evidence["timings"][0])


def test_what_serves_tells_its_plan_with_the_figures_it_was_chosen_by(digest: dict[str, Any]) -> None:
    plan = digest["variants"][0]["plan"]
    assert plan["objective"] == "latency" and plan["instances"] >= 1
    assert plan["buckets"] == [], "one batch size was measured: nothing is known of larger ones"
    assert {"threads", "instances", "rows", "p50_s", "rows_per_s"} == set(plan["curve"][0])
    assert "thread" in plan["reason"] and "at 1 row" in plan["reason"]


def test_models_are_listed_and_found(http: httpx.Client, digest: dict[str, Any]) -> None:
    listed = {model["name"]: model for model in http.get("/v1/models").json()["models"]}
    assert listed["small"] == http.get("/v1/models/small").json()
    assert [version["version"] for version in listed["small"]["versions"]] == ["1"]


def test_a_route_says_who_would_answer_and_why(http: httpx.Client, digest: dict[str, Any]) -> None:
    facts = http.get("/v1/models/small/route", params={"rows": 8}).json()
    assert facts["variant"] in {variant["id"] for variant in digest["variants"]}
    assert facts["why"]
    assert http.get("/v1/models/small/route", params={"rows": 0}).status_code == 400


def test_targets_say_what_is_possible_here(http: httpx.Client) -> None:
    facts = http.get("/v1/targets").json()
    targets = {target["name"]: target for target in facts["targets"]}
    assert targets["ort-cpu"]["available"] is True
    assert "f32" in targets["ort-cpu"]["precisions"]
    assert {"cpu", "cores"} <= set(facts["hardware"])


def test_aliases_move_and_guard_their_version(http: httpx.Client, digest: dict[str, Any]) -> None:
    assert http.put("/v1/models/small/aliases/canary", json={"version": "1"}).status_code == 200
    assert http.get("/v1/models/small").json()["aliases"] == {"canary": "1"}
    assert http.get("/v1/models/small/versions/canary").json()["version"] == "1"
    refused = http.delete("/v1/models/small/versions/1")
    assert (refused.status_code, "canary" in refused.json()["error"]) == (409, True)
    assert http.delete("/v1/models/small/aliases/canary").status_code == 200


def events_of(answer: httpx.Response) -> list[dict[str, str]]:
    events: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        elif "data" in fields:
            events.append(fields)
            fields = {}
        else:
            fields = {}
    return events


def test_a_job_tells_its_story_and_can_be_taken_up_anywhere(http: httpx.Client, digest: dict[str, Any]) -> None:
    path = f"/v1/jobs/{digest['jobs'][-1]}/events"
    with http.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = events_of(answer)
    assert told[-1]["event"] == "end"
    assert json.loads(told[-1]["data"])["state"] == "succeeded"
    ids = [int(event["id"]) for event in told[:-1]]
    assert ids == sorted(set(ids)) and ids
    with http.stream("GET", path, headers={"last-event-id": str(ids[0])}) as answer:
        assert [int(event["id"]) for event in events_of(answer)[:-1]] == ids[1:]


@pytest.mark.parametrize("number", ["x", "-1", "9" * 20, "9" * 5000])
def test_the_log_of_a_job_begins_after_the_number_of_an_event_and_nothing_else(http: httpx.Client, number: str) -> None:
    for given in ({"headers": {"last-event-id": number}}, {"params": {"after": number}}):
        answer = http.get("/v1/jobs/1/events", **given)
        assert (answer.status_code, "error" in answer.json()) == (400, True)


def test_jobs_are_listed_newest_first(http: httpx.Client, digest: dict[str, Any]) -> None:
    jobs = http.get("/v1/jobs", params={"name": "small", "version": "1"}).json()["jobs"]
    assert [job["id"] for job in jobs] == digest["jobs"][::-1]
    assert {"id", "kind", "target", "state", "attempt", "error"} <= set(jobs[0])
    assert "token" not in jobs[0]


def test_a_raw_body_registers_and_a_cancelled_job_stays_cancelled(http: httpx.Client) -> None:
    accepted = http.post("/v1/models/raw/versions", content=mlp(seed=7).SerializeToString()).json()
    cancelled = http.delete(f"/v1/jobs/{accepted['jobs'][-1]}").json()
    assert cancelled["state"] in ("cancelled", "succeeded")
    assert http.delete(f"/v1/jobs/{accepted['jobs'][-1]}").json() == cancelled
    assert http.delete("/v1/models/raw").status_code == 200
    assert http.get("/v1/models/raw").status_code == 404


def test_compile_again_queues_a_job_per_target(http: httpx.Client, digest: dict[str, Any]) -> None:
    asked = {"targets": ["ort-cpu"], "recipes": ["graph-opt"], "policy": POLICY}
    accepted = http.post("/v1/models/small/versions/1/compile", json=asked)
    assert accepted.status_code == 202, accepted.text
    (job,) = accepted.json()["jobs"]
    assert http.get(f"/v1/jobs/{job}").json()["target"] == "ort-cpu"
    http.delete(f"/v1/jobs/{job}")


def pickled() -> bytes:
    import pickle

    return pickle.dumps({"weights": [1, 2, 3]})


def foreign_domain() -> bytes:
    model = mlp()
    model.graph.node[0].domain = "com.evil"
    model.opset_import.append(onnx.helper.make_opsetid("com.evil", 1))
    return bytes(model.SerializeToString())


def wrong_samples(tmp_path: Path) -> dict[str, bytes]:
    def bytes_of(**arrays: np.ndarray) -> bytes:
        return npz(tmp_path / "wrong.npz", **arrays).read_bytes()

    return {
        "names": bytes_of(z=np.zeros((4, 64), np.float32)),
        "dtype": bytes_of(x=np.zeros((4, 64), np.int64)),
        "shape": bytes_of(x=np.zeros((4, 63), np.float32)),
        "NaN": bytes_of(x=np.full((4, 64), np.nan, np.float32)),
        "no npz": b"not a zip",
    }


def test_bad_uploads_are_refused_in_words_and_nothing_is_kept(
    gateway: RunningGateway, http: httpx.Client, tmp_path: Path
) -> None:
    good = mlp().SerializeToString()
    uploads: list[dict[str, Any]] = [
        {"content": b"this is no model"},
        {"content": good[: len(good) // 2]},
        {"content": pickled()},
        {"content": foreign_domain()},
        {"content": b""},
        {"files": {"modle": good}},
        {"files": {"model": good, "policy": b'{"objektive": "latency"}'}},
        {"files": {"model": good, "policy": b'{"targets": ["ort-cup"]}'}},
        {"files": {"model": good, "policy": b'{"gate": {"top1": 7}}'}},
        *({"files": {"model": good, "samples": data}} for data in wrong_samples(tmp_path).values()),
    ]
    for upload in uploads:
        answer = http.post("/v1/models/bad/versions", **upload)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert len(answer.json()["error"]) > 10
    for name in ("stats", "a b", "-x", "x" * 200):
        assert http.post(f"/v1/models/{name}/versions", content=good).status_code == 400
    assert http.get("/v1/models/bad").status_code == 404
    assert list((gateway.data / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/v1/models/smal", None, 404, "small"),
        ("GET", "/v1/models/small/versions/9", None, 404, "9"),
        ("DELETE", "/v1/models/nobody", None, 404, "nobody"),
        ("GET", "/v1/jobs/999999", None, 404, "999999"),
        ("GET", "/v1/jobs/x/events", None, 404, "x"),
        ("GET", "/v1/jobs?state=odd", None, 400, "state"),
        ("PUT", "/v1/models/small/aliases/7", {"version": "1"}, 400, "v7"),
        ("PUT", "/v1/models/small/aliases/ok", {"version": "9"}, 404, "9"),
        ("PUT", "/v1/models/small/aliases/ok", {"verison": "1"}, 400, "verison"),
        ("PUT", "/v1/models/small/aliases/ok", None, 400, "Field required"),
        ("POST", "/v1/models/small/versions/1/compile", {"targets": ["ort-gpu"]}, 400, "ort-cpu"),
        ("POST", "/v1/models/small/versions/1/compile", {"targets": []}, 400, "at least one"),
        ("GET", "/v1/models/small/route?version=9", None, 404, "version 9 is not found"),
        ("GET", "/nowhere", None, 404, "Not Found"),
        ("PATCH", "/v1/models", None, 405, "Method Not Allowed"),
        ("GET", "/v2/models/small/infer", None, 405, "Method Not Allowed"),
        ("GET", "/v2/models/small/versions/abc", None, 404, "Not Found"),
        ("GET", "/v2/models/nobody", None, 404, "Request for unknown model: 'nobody' is not found"),
        ("GET", "/v2/models/small/versions/3", None, 404, "'small' version 3 is not found"),
        ("GET", "/v2/models/nobody/ready", None, 404, "unknown model"),
    ],
)
def test_mistakes_are_answered_in_words(
    http: httpx.Client, digest: dict[str, Any], method: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = http.request(method, path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


def test_a_management_body_is_bounded(http: httpx.Client, digest: dict[str, Any]) -> None:
    huge = {"version": "1" * (2 << 20)}
    answer = http.put("/v1/models/small/aliases/huge", json=huge)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/json")
    assert list(answer.json()) == ["error"]


def test_v2_health_and_metadata(http: httpx.Client, digest: dict[str, Any]) -> None:
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True, "live": True}
    server = http.get("/v2?test_1=1").json()
    assert server["name"] == "forgeway" and "binary_tensor_data" in server["extensions"]
    assert "small" in http.get("/v2/models").json()["models"]
    facts = http.get("/v2/models/small").json()
    assert facts == {
        "name": "small",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
    }
    assert http.get("/v2/models/small/versions/1").json() == facts
    assert http.get("/v2/models/small/ready").json() == {"name": "small", "ready": True}
    assert http.get("/v2/models/small/versions/1/ready").json() == {"name": "small", "ready": True}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}', b'{"ready": true, "unknown": 1}'])
def test_the_repository_index(http: httpx.Client, digest: dict[str, Any], body: bytes) -> None:
    index = http.post("/v2/repository/index", content=body, headers={"content-type": "application/json"}).json()
    assert {"name": "small", "version": "1", "state": "READY", "reason": ""} in index


def test_the_openapi_document_is_valid_and_knows_every_route(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    OpenAPI.model_validate(document)
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert ("POST", "/v1/models/{name}/versions") in described
    assert ("POST", "/v2/models/{name}/infer") in described
    references = [part.split('"')[0] for part in json.dumps(document).split('"$ref": "')[1:]]
    for reference in references:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    operations = itertools.chain.from_iterable(item.values() for item in document["paths"].values())
    assert all(operation.get("description") for operation in operations)


def test_the_interactive_documentation_needs_no_network(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    parts = re.findall('(?:src|href)="([^"]+)"', page.text)
    assert len(parts) >= 2
    for part in parts:
        answer = http.get(part)
        assert part.startswith("/docs/assets/") and answer.status_code == 200, part
        assert len(answer.content) > 1000
    assert http.get("/docs/assets/../../app.py").status_code == 404


def test_metrics_are_served(http: httpx.Client, digest: dict[str, Any]) -> None:
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "forgeway_build_info" in answer.text


def test_metrics_account_for_what_the_worker_did(http: httpx.Client, digest: dict[str, Any]) -> None:
    end = time.monotonic() + 15
    while True:
        text = http.get("/metrics").text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        steps = [name for name in lines if name.startswith("forgeway_compile_duration_seconds_count")]
        done = float(lines['forgeway_compile_jobs{state="succeeded"}'])
        if steps and done >= 2 and float(lines["forgeway_blob_bytes"]) > 0:
            break
        assert time.monotonic() < end, text
        time.sleep(0.1)


def test_request_ids_are_echoed_made_and_never_forged(http: httpx.Client, gateway: RunningGateway) -> None:
    assert http.get("/v1/targets", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(http.get("/v1/targets").headers["x-request-id"]) == 16
    assert http.get("/v1/targets", headers={"x-request-id": 'a" b'}).headers["x-request-id"] != 'a" b'
    lines = [json.loads(line) for line in gateway.words().splitlines()]
    assert any(line.get("request_id") == "abc-1" and line["code"] == 200 for line in lines)


def test_the_gateway_process_holds_no_native_runtime(gateway: RunningGateway, digest: dict[str, Any]) -> None:
    mapped = Path(f"/proc/{gateway.process.pid}/maps").read_text()
    loaded = {part for line in mapped.splitlines() for part in line.split("/")[1:]}
    assert loaded.isdisjoint({"onnx", "onnxruntime", "openvino", "nncf", "scipy"})


def test_pages_of_other_sites_change_nothing(http: httpx.Client) -> None:
    for method, path in (("DELETE", "/v1/models/small"), ("POST", "/v1/models/small/versions")):
        refused = http.request(method, path, headers={"origin": "https://evil.example"})
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/json")
    assert http.get("/v1/models", headers={"host": "evil.example"}).status_code == 403


def test_a_deleted_version_is_gone_at_once(http: httpx.Client, gateway: RunningGateway) -> None:
    http.post("/v1/models/brief/versions", content=mlp(seed=3).SerializeToString(), params={})
    assert http.delete("/v1/models/brief/versions/1").status_code == 200
    assert http.get("/v1/models/brief/versions/1").status_code == 404
    assert http.get("/v2/models/brief/ready").status_code == 404
    again = http.post("/v1/models/brief/versions", content=mlp(seed=3).SerializeToString()).json()
    assert again["version"] == "2"  # numbers are never used twice
    http.delete("/v1/models/brief")


def test_the_proof_card_is_a_page_for_people_and_json_for_programs(http: httpx.Client, digest: dict[str, Any]) -> None:
    path = "/v1/models/small/versions/1/report"
    browser = http.get(path, headers={"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"})
    assert browser.headers["content-type"] == "text/html; charset=utf-8"
    assert browser.headers["content-security-policy"].startswith("default-src 'none'")
    assert "small version 1" in browser.text and "Still compiling" not in browser.text
    assert http.get(path).headers["content-type"] == "text/html; charset=utf-8"
    asked = http.get(path, headers={"accept": "application/json"})
    assert (asked.headers["content-type"], asked.headers["vary"]) == ("application/json", "accept")
    facts = asked.json()
    assert {variant["id"] for variant in facts["variants"]} == {variant["id"] for variant in digest["variants"]}
    assert facts["complete"] is True and facts["samples"]["sha256"] and facts["chosen"][0]["rows"] == 1
    assert http.get(path, params={"format": "json"}).json()["name"] == "small"
    page = http.get(path, params={"format": "html"}, headers={"accept": "application/json"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert http.get(path, params={"format": "pdf"}).status_code == 400
    assert http.get("/v1/models/small/versions/9/report").status_code == 404


@pytest.mark.parametrize(
    ("accept", "json_is_liked"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", True),
        ("application/*", True),
        ("text/html;q=0.2, application/json;q=0.9", True),
        ("application/json;q=0.1, */*;q=0.5", False),
        ("application/json;q=nonsense", False),
        ("image/png", False),
    ],
)
def test_what_a_client_would_rather_read(accept: str, json_is_liked: bool) -> None:
    assert wants_json(accept) is json_is_liked

"""V2 of a running gateway beside inference: every endpoint, every refusal with its status and words (PROTOCOL)."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from gateway.routing.ranking import MOST_ROWS
from tests import zoo
from tests.gateways import RunningGateway

NAMED = "'repository_name' specification is not supported"
FILE = b'{"parameters": {"file:1/model.onnx": "AAAA"}}'
POLL = "failed to load 'nobody', failed to poll from model repository"
UNKNOWN = "Request for unknown model: 'nobody' is not found"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(
        tmp_path_factory.mktemp("v2") / "data", "--shared-memory", "--server-name", "triton", "--load-timeout-s", "30"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def http(gateway: RunningGateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        for name, model in (("simple", zoo.simple()), ("mixing", zoo.batch_mixing())):
            load(client, name, **{"file:1/model.onnx": model.SerializeToString()})
        yield client


def load(http: httpx.Client, name: str, status: int = 200, **parameters: Any) -> str:
    given = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in parameters.items()}
    answer = http.post(f"/v2/repository/models/{name}/load", json={"parameters": given} if given else None)
    assert answer.status_code == status, answer.text
    return answer.text


def infer(http: httpx.Client, name: str = "simple", rows: int = 1, **more: Any) -> httpx.Response:
    data = list(range(16 * rows))
    inputs = [{"name": f"INPUT{nth}", "shape": [rows, 16], "datatype": "INT32", "data": data} for nth in range(2)]
    return http.post(f"/v2/models/{name}/infer", json={"inputs": inputs, **more})


def test_the_server_says_what_it_can_do(http: httpx.Client) -> None:
    server = http.get("/v2?test_1=1&test_2=2").json()
    assert server["name"] == "triton"
    assert set(server["extensions"]) == {
        "binary_tensor_data", "classification", "logging", "model_configuration", "model_repository", "parameters",
        "schedule_policy", "statistics", "system_shared_memory",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/v2/models/simple", "/v2/models/simple/versions/1"])
def test_a_model_tells_its_metadata_readiness_config_and_statistics(http: httpx.Client, path: str) -> None:
    facts = http.get(path).json()
    assert facts["versions"] == ["1"]
    assert facts["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}
    assert http.get(f"{path}/ready").json() == {"name": "simple", "ready": True}
    config = http.get(f"{path}/config").json()
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (MOST_ROWS, [16])
    assert infer(http).status_code == 200
    (entry,) = http.get(f"{path}/stats").json()["model_stats"]
    assert (entry["name"], entry["version"]) == ("simple", "1")
    assert entry["inference_stats"]["queue"]["count"] >= 1


def test_statistics_of_all_models(http: httpx.Client) -> None:
    names = {entry["name"] for entry in http.get("/v2/models/stats").json()["model_stats"]}
    assert {"simple", "mixing"} <= names


REFUSED = [
    ("GET", "/v2/models/nobody", None, 404, UNKNOWN),
    ("GET", "/v2/models/nobody/config", None, 404, UNKNOWN),
    ("GET", "/v2/models/nobody/ready", None, 404, UNKNOWN),
    ("GET", "/v2/models/nobody/stats", None, 400, "requested model 'nobody' is not available"),
    ("GET", "/v2/models/simple/versions/3/config", None, 404, "'simple' version 3 is not found"),
    ("GET", "/v2/models/simple/versions/abc", None, 404, "Not Found"),
    ("GET", "/v2/models/simple/versions/abc/config", None, 404, "Not Found"),
    ("GET", "/v2/models/simple/versions/" + "9" * 5000, None, 404, "Not Found"),
    ("GET", "/v2/models/simple/nothing", None, 404, "Not Found"),
    ("GET", "/v2/nothing", None, 404, "Not Found"),
    ("POST", "/v2", None, 405, "Method Not Allowed"),
    ("POST", "/v2/models/simple", None, 405, "Method Not Allowed"),
    ("GET", "/v2/models/simple/infer", None, 405, "Method Not Allowed"),
    ("GET", "/v2/repository/index", None, 405, "Method Not Allowed"),
    ("POST", "/v2/repository/index", b"{", 400, "failed to parse the request JSON"),
    ("POST", "/v2/repository/index", b'{"ready": 1}', 400, "Unable to parse 'ready'"),
    ("POST", "/v2/models/simple/generate", b"{}", 501, "the generate extension is not supported"),
    ("POST", "/v2/models/simple/versions/1/generate_stream", b"{}", 501, "the generate extension is not supported"),
    ("GET", "/v2/models/simple/generate", None, 405, "Method Not Allowed"),
    ("POST", "/v2/repository/other/index", None, 501, NAMED),
    ("POST", "/v2/repository/other/models/simple/load", None, 501, NAMED),
    ("POST", "/v2/repository/other/models/simple/unload", None, 501, NAMED),
    ("POST", "/v2/repository/models/nobody/load", None, 500, POLL),
    ("POST", "/v2/repository/models/simple/load", b"[]", 400, "it must be an object"),
    ("POST", "/v2/repository/models/simple/load", b'{"parameters": 1}', 400, "Unable to parse 'parameters'"),
    ("POST", "/v2/repository/models/simple/load", b'{"parameters": {"speed": "1"}}', 400, "'speed' is not known"),
    ("POST", "/v2/repository/models/simple/load", b'{"parameters": {"config": 1}}', 400, "must be a text"),
    ("POST", "/v2/repository/models/simple/load", b'{"parameters": {"config": "{"}}', 400, "is not JSON"),
    ("POST", "/v2/repository/models/simple/load", b'{"parameters": {"file:1/model.onnx": "?"}}', 400, "not base64"),
    ("POST", "/v2/repository/models/new/load", FILE, 400, "failed to load 'new'"),
    ("POST", "/v2/repository/models/stats/load", FILE, 400, "no name for a model"),
    ("POST", "/v2/repository/models/simple/unload", b'{"parameters": {"unload_dependents": 1}}', 400,
     "Unable to parse 'unload_dependents'"),
    ("GET", "/v2/systemsharedmemory/region/r/status", None, 404, "Unable to find system shared memory region: 'r'"),
    ("POST", "/v2/systemsharedmemory/region/r/register", b"{}", 400, "Unable to parse 'key'"),
    ("POST", "/v2/systemsharedmemory/region/r/register", b'{"key": "/x"}', 400, "Unable to parse 'byte_size'"),
    ("POST", "/v2/systemsharedmemory/region/r/register", b'{"key": "/no-such", "byte_size": 1}', 400,
     "Unable to open shared memory region: '/no-such'"),
    ("POST", "/v2/systemsharedmemory/region/r/register", b'{"key": "/../etc", "byte_size": 1}', 400, "Unable to open"),
    ("POST", "/v2/cudasharedmemory/region/r/register", b"{}", 400,
     "failed to register CUDA shared memory region: 'r', GPUs not supported"),
    ("GET", "/v2/cudasharedmemory/region/r/status", None, 404, "Unable to find cuda shared memory region: 'r'"),
    ("POST", "/v2/logging", b'{"log_file": "x"}', 501, "log file location can not be updated through network protocol"),
    ("POST", "/v2/logging", b'{"log_info": 1}', 400, "'log_info' must be true or false"),
    ("POST", "/v2/trace/setting", b'{"trace_level": ["LOUD"]}', 400, "OFF, TIMESTAMPS, TENSORS"),
    ("GET", "/v2/models/nobody/trace/setting", None, 404, UNKNOWN),
    ("POST", "/v2/models/nobody/trace/setting", b"{}", 404, UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), REFUSED)
def test_every_refusal_has_its_status_words_and_content_type(
    http: httpx.Client, method: str, path: str, body: bytes | None, status: int, words: str
) -> None:
    answer = http.request(method, path, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert status != 405 or answer.headers["allow"]


def test_a_405_names_every_method_of_its_path(http: httpx.Client) -> None:
    assert http.patch("/v2/logging").headers["allow"] == "GET, POST"
    assert http.get("/v2/models/simple/versions/1/infer").headers["allow"] == "POST"


def test_the_document_says_what_is_answered(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    for path, item in paths.items():
        for method, operation in item.items():
            if not path.startswith("/v2"):
                continue
            assert operation["responses"]["default"]["content"]["application/json"]["schema"]["required"] == ["error"]
            answer = operation["responses"]["200"]
            assert "content" not in answer or answer["content"]["application/json"]["schema"], (method, path)
    infer = paths["/v2/models/{name}/versions/{version}/infer"]["post"]
    assert {parameter["name"] for parameter in infer["parameters"]} == {
        "name", "version", "Inference-Header-Content-Length",
    }  # fmt: skip
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert not any("{repository_name}" in path for path in paths)


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"ready": true}', b'{"ready": false, "x": 1}'])
def test_the_index_takes_any_body_clients_send(http: httpx.Client, body: bytes | None) -> None:
    index = http.post("/v2/repository/index", content=body).json()
    assert {"name": "simple", "version": "1", "state": "READY", "reason": ""} in index


def test_unload_takes_a_model_out_at_once_and_load_brings_it_back(http: httpx.Client) -> None:
    for body in (None, b'{"parameters": {"unload_dependents": false}}'):
        answer = http.post("/v2/repository/models/mixing/unload", content=body)
        assert (answer.status_code, answer.content) == (200, b"")
    assert http.get("/v2/models/mixing/ready").status_code == 404
    refused = http.get("/v2/models/mixing")
    assert refused.json() == {"error": "Request for unknown model: 'mixing' has no available versions"}
    refused = http.get("/v2/models/mixing/versions/1/ready")
    assert refused.status_code == 503
    assert refused.json()["error"].startswith("Request for unknown model: 'mixing' version 1 is not at ready state")
    rows = {"name": "mixing", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    assert rows in http.post("/v2/repository/index").json()
    assert rows not in http.post("/v2/repository/index", json={"ready": True}).json()
    assert http.get("/v2/models/mixing/stats").status_code == 400
    assert "mixing" not in http.get("/v2/models").json()["models"]
    load(http, "mixing")
    assert http.get("/v2/models/mixing/ready").status_code == 200
    assert http.post("/v2/repository/models/nobody/unload").status_code == 200


def test_unloading_under_load_harms_no_request_that_was_let_in(http: httpx.Client, gateway: RunningGateway) -> None:
    load(http, "coming", **{"file:1/model.onnx": zoo.simple().SerializeToString()})
    stop = threading.Event()

    def ask() -> Counter[int]:
        seen: Counter[int] = Counter()
        with httpx.Client(base_url=gateway.url, timeout=30) as own:
            while not stop.is_set():
                answer = infer(own, "coming")
                seen[answer.status_code] += 1
                assert answer.status_code != 200 or answer.json()["outputs"][0]["data"] == list(range(0, 32, 2))
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        for _ in range(8):
            assert http.post("/v2/repository/models/coming/unload").status_code == 200
            assert http.get("/v2/models/coming/ready").status_code == 404
            load(http, "coming")
            assert infer(http, "coming").status_code == 200
        stop.set()
        seen = sum((each.result() for each in asking), Counter())
    assert seen[200] > 0 and set(seen) <= {200, 404, 503}


def test_a_config_override_holds_until_the_next_load(http: httpx.Client) -> None:
    load(http, "simple", config='{"max_batch_size": "4", "parameters": {"k": {"string_value": "v"}}}')
    config = http.get("/v2/models/simple/config").json()
    assert (config["max_batch_size"], config["parameters"]) == (4, {"k": {"string_value": "v"}})
    assert infer(http, rows=4).status_code == 200
    refused = infer(http, rows=5, id="7")
    assert refused.status_code == 400
    assert refused.json()["error"] == "[request id: 7] inference request batch-size must be <= 4 for 'simple'"
    assert "is more than 4096" in load(http, "simple", 400, config='{"max_batch_size": 5000}')
    assert http.get("/v2/models/simple/config").json()["max_batch_size"] == 4
    assert "cannot be changed" in load(http, "simple", 501, config='{"backend": "tensorrt"}')
    assert "only 0 is possible" in load(http, "mixing", 400, config='{"max_batch_size": 8}')
    load(http, "simple")
    assert http.get("/v2/models/simple/config").json()["max_batch_size"] == MOST_ROWS
    assert infer(http, rows=MOST_ROWS).status_code == 200
    assert infer(http, rows=MOST_ROWS + 1).status_code == 400


def test_a_load_with_a_file_registers_a_version_that_answers(http: httpx.Client) -> None:
    load(http, "bytes", config='{"backend": "onnxruntime"}', **{"file:1/model.onnx": zoo.simple().SerializeToString()})
    assert infer(http, "bytes").status_code == 200
    load(http, "bytes", **{"file:2/model.onnx": zoo.fixed_batch().SerializeToString()})
    assert http.get("/v2/models/bytes").json()["versions"] == ["1", "2"]
    assert http.get("/v2/models/bytes").json()["inputs"][0]["name"] == "x"
    assert infer(http, "bytes/versions/1").status_code == 200


def test_a_load_takes_external_data_and_the_versions_in_order(http: httpx.Client, tmp_path: Path) -> None:
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save_model(zoo.mlp(inputs=16), tmp_path / "model.onnx", **options)
    files = {f"file:7/{name}": (tmp_path / name).read_bytes() for name in ("model.onnx", "weights.bin")}
    load(http, "pair", **files, **{"file:3/model.onnx": zoo.simple().SerializeToString()})
    assert [http.get(f"/v2/models/pair/versions/{n}").json()["inputs"][0]["name"] for n in (1, 2)] == ["INPUT0", "x"]
    for hostile in ("file:1/../../model.onnx", "file:1//etc/model.onnx"):
        load(http, "hostile", 400, **{hostile: b"x", "file:1/model.onnx": zoo.simple().SerializeToString()})


@pytest.fixture
def shm() -> Iterator[Path]:
    file = Path("/dev/shm", f"forgeway-test-{uuid.uuid4().hex}")
    file.write_bytes(bytes(512))
    yield file
    file.unlink()


def test_inference_through_shared_memory(http: httpx.Client, shm: Path) -> None:
    x = np.arange(32, dtype=np.int32)
    shm.write_bytes(x.tobytes() + bytes(256))
    register = {"key": f"/{shm.name}", "offset": 0, "byte_size": 256}
    for name in ("all", "again"):
        answer = http.post(f"/v2/systemsharedmemory/region/{name}/register", json=register)
        assert (answer.status_code, answer.content) == (200, b"")
    again = http.post("/v2/systemsharedmemory/region/all/register", json=register)
    assert again.status_code == 400
    assert again.json() == {"error": "shared memory region 'all' already in manager"}
    assert http.get("/v2/systemsharedmemory/region/all/status").json() == [{"name": "all", **register}]
    assert len(http.get("/v2/systemsharedmemory/status").json()) == 2

    def place(offset: int, size: int, region: str = "all") -> dict[str, Any]:
        return {"parameters": {
            "shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": size,
        }}  # fmt: skip

    def ask(output: dict[str, Any], offset: int = 0, region: str = "all", size: int = 64) -> httpx.Response:
        inputs = [
            {"name": "INPUT0", "shape": [1, 16], "datatype": "INT32", **place(offset, size, region)},
            {"name": "INPUT1", "shape": [1, 16], "datatype": "INT32", **place(64, 64)},
        ]
        outputs = [{"name": "OUTPUT0", **output}, {"name": "OUTPUT1"}]
        return http.post("/v2/models/simple/infer", json={"inputs": inputs, "outputs": outputs})

    answer = ask(place(128, 128))
    assert answer.status_code == 200, answer.text
    by_name = {output["name"]: output for output in answer.json()["outputs"]}
    assert by_name["OUTPUT0"] == {"name": "OUTPUT0", "datatype": "INT32", "shape": [1, 16]}
    assert by_name["OUTPUT1"]["data"] == (x[:16] - x[16:]).tolist()
    assert np.array_equal(np.frombuffer(shm.read_bytes()[128:192], np.int32), x[:16] + x[16:])
    for refused, status, words in (
        (ask(place(128, 4)), 400, "shared memory size specified with the request for output 'OUTPUT0' (4 bytes) should "
         "be at least 64 bytes to hold the results"),
        (ask(place(0, 64, "none")), 404, "Unable to find shared memory region: 'none'"),
        (ask({}, region="none"), 404, "Unable to find shared memory region: 'none'"),
        (ask({}, offset=256), 400, "Invalid offset for shared memory region: 'all'"),
        (ask({}, offset=224), 400, "Invalid offset + byte size for shared memory region: 'all'"),
        (ask({}, size=60), 400, "input byte size mismatch for input 'INPUT0' for model 'simple'. Expected 64, got 60"),
        (ask({"parameters": {**place(0, 64)["parameters"], "classification": 1}}), 400, "'classification'"),
        (ask({"parameters": {**place(0, 64)["parameters"], "binary_data": True}}), 400, "'binary_data'"),
    ):  # fmt: skip
        assert (refused.status_code, words in refused.json()["error"]) == (status, True), refused.text
    assert http.post("/v2/systemsharedmemory/region/again/unregister").content == b""
    assert http.post("/v2/systemsharedmemory/unregister").status_code == 200
    assert http.post("/v2/systemsharedmemory/region/gone/unregister").status_code == 200
    assert http.get("/v2/systemsharedmemory/status").json() == []
    assert ask({}).status_code == 404


def test_cuda_shared_memory_answers_where_there_is_no_gpu(http: httpx.Client) -> None:
    assert http.get("/v2/cudasharedmemory/status").json() == []
    for path in ("unregister", "region/r/unregister"):
        assert http.post(f"/v2/cudasharedmemory/{path}").status_code == 200


def test_log_settings_are_in_force_and_trace_settings_kept(http: httpx.Client, gateway: RunningGateway) -> None:
    assert http.get("/v2/logging").json()["log_verbose_level"] == 0
    changed = http.post("/v2/logging", json={"log_info": False, "log_warning": False}).json()
    assert (changed["log_info"], changed["log_error"]) == (False, True)
    before = gateway.words().count('"path":"/v2/models"')
    http.get("/v2/models")
    assert gateway.words().count('"path":"/v2/models"') == before
    http.post("/v2/logging", json={"log_info": True, "log_warning": True})
    http.get("/v2/models")
    end = time.monotonic() + 10
    while gateway.words().count('"path":"/v2/models"') == before:  # it is logged once it is answered
        assert time.monotonic() < end
        time.sleep(0.01)
    http.post("/v2/trace/setting", json={"trace_rate": 5.0})
    model = http.post("/v2/models/simple/trace/setting", json={"trace_level": ["TIMESTAMPS"]}).json()
    assert (model["trace_rate"], model["trace_level"]) == ("5", ["TIMESTAMPS"])
    assert http.get("/v2/models/simple/trace/setting").json() == model
    assert http.get("/v2/trace/setting").json()["trace_level"] == ["OFF"]


def test_loads_are_bounded(tmp_path: Path) -> None:
    with RunningGateway(tmp_path / "data", "--max-body-bytes", "2048") as small:
        body = json.dumps({"parameters": {"file:1/model.onnx": "A" * 4096}})
        refused = httpx.post(f"{small.url}/v2/repository/models/x/load", content=body)
        assert refused.status_code == 413
        assert "exceeds the maximum allowed input size" in refused.json()["error"]
        register = {"key": "/x", "offset": 0, "byte_size": 256}
        refused = httpx.post(f"{small.url}/v2/systemsharedmemory/region/r/register", json=register)
        assert refused.status_code == 501
        assert "system_shared_memory" not in httpx.get(f"{small.url}/v2").json()["extensions"]
        assert httpx.post(f"{small.url}/v2/systemsharedmemory/unregister").status_code == 200

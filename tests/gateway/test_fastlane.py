"""The fast lane as an ASGI server sees it: paths, headers, bodies in pieces, refusals, clients that leave."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal

import numpy as np
import pytest

from gateway.fastlane import FastLane, Lane, lane_of
from tests import zoo
from tests.gateway.engines import deploy, engine, until


async def elsewhere(scope, receive, send):
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"the application"})


class Client:
    def __init__(self, serving):
        self.app = FastLane(elsewhere, serving)

    async def post(self, path: str, *chunks: bytes, method: str = "POST", leave_after: float | None = None, **headers):
        """(status, headers, body). The body arrives in `chunks`; then the client waits, or leaves."""
        pending = [*chunks] or [b""]
        sent: list[dict] = []

        async def receive():
            if pending:
                chunk = pending.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(pending)}
            await asyncio.sleep(30 if leave_after is None else leave_after)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        raw.append((b"content-length", str(sum(map(len, chunks))).encode()))
        await self.app({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
        if not sent:
            return None
        body = b"".join(bytes(message["body"]) for message in sent[1:])
        return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, body


def serve(test, tmp_path, **changes):
    async def run():
        async with engine(**changes) as serving:
            await deploy(serving, "mlp", zoo.mlp(), tmp_path)
            await test(Client(serving), serving)

    asyncio.run(asyncio.wait_for(run(), 60))


X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)
JSON = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": X.ravel().tolist()}]}
).encode()
INFER = "/v2/models/mlp/infer"


def binary(**parameters) -> tuple[bytes, dict[str, str]]:
    given = {"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}}
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True, **parameters}}).encode()
    return head + X.tobytes(), {"inference_header_content_length": str(len(head))}


@pytest.mark.parametrize(
    ("path", "lane"),
    [
        ("/v2/models/m/infer", Lane("v2", "m", None)),
        ("/v2/models/m/versions/3/infer", Lane("v2", "m", "3")),
        ("/v2/models/m/versions/champion/infer", Lane("v2", "m", "champion")),
        ("/v1/models/m:predict", Lane("v1", "m", None)),
        ("/v1/models/m/versions/3:predict", Lane("v1", "m", "3")),
        ("/v2/models/m", None),
        ("/v2/models//infer", None),
        ("/v2/models/m/versions//infer", None),
        ("/v2/models/m/x/3/infer", None),
        ("/v1/models/m/versions", None),
        ("/v1/models/:predict", None),
        ("/v3/models/m/infer", None),
        ("", None),
    ],
)
def test_only_prediction_paths_are_taken(path, lane):
    assert lane_of(path) == lane


def test_json_binary_and_v1_give_the_same_answer_with_the_variant_and_the_stages(tmp_path):
    async def test(client, serving):
        status, headers, body = await client.post(INFER, JSON)
        assert (status, headers["content-type"]) == (200, "application/json")
        answer = json.loads(body)
        assert (answer["model_name"], answer["model_version"]) == ("mlp", "1")
        raw, extra = binary()
        status, binary_headers, binary_body = await client.post(INFER, raw, **extra)
        assert (status, binary_headers["content-type"]) == (200, "application/octet-stream")
        length = int(binary_headers["inference-header-content-length"])
        assert json.loads(binary_body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 40}
        y = np.frombuffer(binary_body[length:], np.float32)
        np.testing.assert_allclose(answer["outputs"][0]["data"], y, rtol=1e-6)
        status, _, v1 = await client.post("/v1/models/mlp:predict", json.dumps({"instances": X.tolist()}).encode())
        np.testing.assert_allclose(json.loads(v1)["predictions"][0], y, rtol=1e-6)
        for fields, text in ((headers, body), (binary_headers, binary_body)):
            assert fields["forgeway-variant"] == "reference"
            assert int(fields["content-length"]) == len(text)
            stages = [stage.split(";dur=") for stage in fields["server-timing"].split(", ")]
            assert [name for name, _ in stages] == ["decode", "queue", "input", "infer", "output"]
            assert all(float(ms) >= 0 for _, ms in stages)
        assert b'forgeway_requests_total{model="mlp",version="1",variant="reference"' in serving.metrics.render()

    serve(test, tmp_path)


def test_bodies_may_come_in_pieces_and_compressed(tmp_path):
    async def test(client, serving):
        plain = await client.post(INFER, JSON)
        pieces = await client.post(INFER, JSON[:10], b"", JSON[10:200], JSON[200:])
        packed = await client.post(INFER, gzip.compress(JSON), content_encoding="gzip")
        assert plain[2] == pieces[2] == packed[2]
        raw, extra = binary()
        assert (await client.post(INFER, gzip.compress(raw), content_encoding="gzip", **extra))[0] == 200
        status, headers, _ = await client.post(INFER, JSON, content_encoding="zstd")
        assert (status, headers["accept-encoding"]) == (501, "gzip, deflate")

    serve(test, tmp_path)


def test_large_json_is_decoded_off_the_loop_with_the_same_outcome(tmp_path):
    async def test(client, serving):
        await deploy(serving, "mlp", zoo.mlp(), tmp_path, max_rows=4096)
        rows = np.tile(X, (2000, 1))
        given = {"name": "x", "shape": [2000, 64], "datatype": "FP32", "data": rows.tolist()}
        status, _, body = await client.post(INFER, json.dumps({"inputs": [given]}).encode())
        assert status == 200
        assert json.loads(body)["outputs"][0]["shape"] == [2000, 10]

    serve(test, tmp_path)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "words"),
    [
        ("/v2/models/none/infer", JSON, {}, 404, "Request for unknown model: 'none' is not found"),
        ("/v2/models/mlp/versions/9/infer", JSON, {}, 404, "'mlp' version 9 is not found"),
        (INFER, b"{}", {}, 400, "missing required field `inputs`"),
        (INFER, JSON, {"inference_header_content_length": "99999"}, 400, "should be in range (0, "),
        (INFER, b"1234", {"inference_header_content_length": "0"}, 400, "Expected 256, got 4"),
        (INFER, JSON, {"forgeway_variant": "int3"}, 400, "no variant 'int3'; it has reference"),
        (INFER, JSON, {"x_request_timeout": "soon"}, 400, "'soon' is no positive number"),
        (INFER, b"x" * 2000, {}, 413, "the limit is 1024"),
        ("/v1/models/mlp:predict", b'{"instances": []}', {}, 400, "at least one row"),
    ],
)
def test_refusals_are_json_with_words_and_the_exact_content_type(tmp_path, path, body, headers, status, words):
    async def test(client, serving):
        got, fields, text = await client.post(path, body, **headers)
        assert (got, fields["content-type"]) == (status, "application/json")
        assert words in json.loads(text)["error"]
        assert list(json.loads(text)) == ["error"]

    limit = 1024 if status == 413 else 64 << 20
    serve(test, tmp_path, max_body_bytes=limit)


def test_everything_else_goes_to_the_application(tmp_path):
    async def test(client, serving):
        assert (await client.post(INFER, JSON, method="GET"))[0] == 418
        assert (await client.post("/v1/models"))[0] == 418

    serve(test, tmp_path)


def test_a_full_house_and_a_draining_one_refuse_at_the_door(tmp_path):
    async def test(client, serving):
        os.kill(serving.runners.get("ort-cpu").pid, signal.SIGSTOP)
        inside = [asyncio.create_task(client.post(INFER, JSON, timeout_ms="500")) for _ in range(2)]
        await until(lambda: serving.admission.inflight == 2)
        status, headers, body = await client.post(INFER, JSON)
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["error"].startswith("Exceeds maximum queue size")
        for status, _, body in await asyncio.gather(*inside):
            assert (status, json.loads(body)) == (504, {"error": "Request timeout expired"})
        serving.draining = True
        assert (await client.post(INFER, JSON))[0] == 503
        assert serving.ready()[0] is False
        assert serving.admission.inflight == 0
        seen = serving.metrics.render().decode()
        assert 'forgeway_requests_shed_total{reason="queue_full"} 1.0' in seen
        assert 'forgeway_requests_shed_total{reason="draining"} 1.0' in seen
        assert 'code="504",reason="deadline"} 2' in seen

    serve(test, tmp_path, max_inflight=2)


def test_the_timeout_parameter_counts_in_microseconds(tmp_path):
    async def test(client, serving):
        os.kill(serving.runners.get("ort-cpu").pid, signal.SIGSTOP)
        raw, extra = binary(timeout=100_000)
        assert (await client.post(INFER, raw, **extra))[0] == 504

    serve(test, tmp_path)


def test_a_client_that_leaves_while_it_waits_is_withdrawn_and_counted(tmp_path):
    async def test(client, serving):
        runner = serving.runners.get("ort-cpu")
        os.kill(runner.pid, signal.SIGSTOP)
        stuck = [asyncio.create_task(client.post(INFER, JSON, timeout_ms="1500")) for _ in range(2)]
        await until(lambda: runner.inflight == 1)
        stuck.append(asyncio.create_task(client.post(INFER, JSON, timeout_ms="1500")))
        await until(lambda: serving.batchers["mlp", "1"].depth == 1)
        assert await client.post(INFER, JSON, leave_after=0.05) is None
        assert 'code="499",reason="cancelled"} 1' in serving.metrics.render().decode()
        await asyncio.gather(*stuck)

    serve(test, tmp_path)


def test_what_nobody_foresaw_is_a_500_without_details(tmp_path):
    async def test(client, serving):
        serving.deadline_s = lambda asked: 1 / 0
        status, _, body = await client.post(INFER, JSON)
        assert (status, json.loads(body)) == (500, {"error": "internal error"})

    serve(test, tmp_path)

"""The Python client against a running gateway, and its patience against a server that says "not now"."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gateway.client import (
    AsyncClient,
    BadRequest,
    Client,
    Conflict,
    DeadlineExceeded,
    NotFound,
    Retry,
    ServerFailed,
    Unavailable,
    Unreachable,
    tensors,
)
from gateway.client.events import EventReader
from tests.gateways import RunningGateway, register_uncompiled
from tests.zoo import mlp, multi_io, random_inputs, strings

FUSION = {"techniques": ["fusion"], "targets": ["ort-cpu"], "rows": [1], "budget_seconds": 60}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("client")
    with RunningGateway(folder / "data") as gateway, Client(gateway.url) as client:
        client.register("mlp", mlp().SerializeToString(), policy=FUSION)
        for name, model in (("several", multi_io()), ("text", strings())):
            register_uncompiled(client, name, model)
        for name in ("mlp", "several", "text"):
            client.wait(name, "1", timeout=60)
        yield gateway.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def test_a_prediction_is_arrays_and_says_who_answered(client: Client) -> None:
    answer = client.predict("mlp", random_inputs(mlp(), 5), request_id="r1")
    assert {name: array.shape for name, array in answer.items()} == {"y": (5, 10)}
    assert answer["y"].dtype == np.float32
    assert (answer.model, answer.version, answer.id) == ("mlp", "1", "r1")
    assert answer.variant
    assert answer.stages["infer"] > 0


def test_the_reference_can_be_pinned_and_gives_the_same(client: Client) -> None:
    inputs = random_inputs(mlp(), 3)
    pinned = client.predict("mlp", inputs, variant="reference", version="1")
    assert pinned.variant == "reference"
    np.testing.assert_allclose(pinned["y"], client.predict("mlp", inputs)["y"], rtol=1e-3, atol=1e-4)


def test_several_inputs_and_only_the_outputs_asked_for(client: Client) -> None:
    a, b = np.ones((2, 4), np.float32), np.full((2, 4), 3, np.int32)
    answer = client.predict("several", {"a": a, "b": b}, outputs=["difference"])
    assert list(answer) == ["difference"]
    np.testing.assert_array_equal(answer["difference"], a - b)


def test_text_goes_in_and_comes_out(client: Client) -> None:
    answer = client.predict("text", {"text": np.array(["grün", ""], dtype=object)})
    assert answer["same"].tolist() == ["grün".encode(), b""]


def test_every_verb_of_the_registry(client: Client) -> None:
    assert {"mlp", "several", "text"} <= {model["name"] for model in client.models()}
    assert client.version("mlp", "1")["variants"][0]["id"] == "reference"
    assert client.route("mlp", rows=4)["rows"] == 4
    assert client.set_alias("mlp", "champion", "1")["alias"] == "champion"
    with pytest.raises(Conflict):
        client.delete("mlp", "1")
    client.delete_alias("mlp", "champion")
    job = client.jobs(name="mlp")[0]
    assert client.job(job["id"]) == job
    told = list(client.events(job["id"]))
    assert [event.id for event in client.events(job["id"], after=told[1].id)] == [event.id for event in told[2:]]
    assert client.cancel(job["id"])["state"] == "succeeded"
    assert client.targets()["targets"]
    assert client.metadata("mlp")["inputs"][0]["name"] == "x"
    assert "forgeway_requests_total" in client.metrics()
    assert client.is_ready()


def test_uploads_count_their_bytes_and_wait_tells_events(client: Client, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(mlp(seed=5).SerializeToString())
    sent: list[tuple[int, int]] = []
    samples = {"x": np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)}
    answer = client.register(
        "counted", tmp_path / "m.onnx", samples=samples, policy=FUSION, progress=lambda *at: sent.append(at)
    )
    assert sent[-1][0] == sent[-1][1] > (tmp_path / "m.onnx").stat().st_size
    told: list[str] = []
    facts = client.wait("counted", answer["version"], timeout=60, on_event=lambda event: told.append(event.step))
    assert facts["status"] == "ready" and "publish" in told
    client.delete("counted")
    with pytest.raises(NotFound):
        client.model("counted")


def test_errors_have_types_and_the_words_of_the_gateway(client: Client) -> None:
    with pytest.raises(NotFound, match="unknown model: 'nobody'") as missing:
        client.predict("nobody", {"x": np.zeros(1, np.float32)})
    assert missing.value.status == 404
    with pytest.raises(BadRequest, match="FP32"):
        client.predict("mlp", {"x": np.zeros((1, 64))})
    with pytest.raises(BadRequest):
        client.register("bad", b"no model")
    with pytest.raises(TypeError, match="complex"):
        client.predict("mlp", {"x": np.zeros(1, np.complex64)})


def test_the_awaiting_twin_does_the_same(url: str) -> None:
    async def walk() -> None:
        async with AsyncClient(url) as client:
            inputs = random_inputs(mlp(), 2)
            answers = await asyncio.gather(*(client.predict("mlp", inputs) for _ in range(8)))
            assert {answer["y"].shape for answer in answers} == {(2, 10)}
            accepted = await client.register("twin", mlp(seed=9).SerializeToString(), policy=FUSION)
            facts = await client.wait("twin", accepted["version"], timeout=60, on_event=lambda event: None)
            assert facts["status"] == "ready"
            assert [event async for event in client.events(accepted["jobs"][0])]
            await client.delete("twin")
            with pytest.raises(NotFound):
                await client.model("twin")

    asyncio.run(walk())


def test_both_clients_have_the_same_verbs() -> None:
    def verbs(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")} - {"close", "aclose"}

    assert verbs(Client) == verbs(AsyncClient)


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", "f4", "f8"])
def test_tensors_survive_the_wire(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    body, head = tensors.encode({"x": array[:, ::-1]}, None, {}, None)
    request = body[:head].replace(b'"inputs"', b'"outputs"')
    _, outputs = tensors.decode(request + body[head:], str(len(request)))
    np.testing.assert_array_equal(outputs["x"], array[:, ::-1])


def test_an_event_reader_ignores_heartbeats_and_knows_the_end() -> None:
    reader = EventReader()
    event = b'{"seq": 4, "job": "1", "at": 1.5, "step": "build", "status": "done", "text": "ok"}'.decode()
    lines = [": still there", "", "retry: 1000", "", "id: 4", f"data: {event}", "", "event: end", "data: {}", ""]
    found = [event for line in lines if (event := reader.feed(line)) is not None]
    assert [(event.id, event.step) for event in found] == [(4, "build")]
    assert (reader.after, reader.ended) == (4, True)


Reply = tuple[int, dict[str, str]]


@pytest.fixture
def moody() -> Iterator[Callable[[list[Reply]], tuple[str, list[str]]]]:
    """A server that answers with the replies given, the last one over and over; and the requests it saw."""
    servers: list[ThreadingHTTPServer] = []

    def start(replies: list[Reply]) -> tuple[str, list[str]]:
        seen: list[str] = []
        moods = itertools.chain(replies, itertools.repeat(replies[-1]))

        class Moody(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                seen.append(self.command)
                status, headers = next(moods)
                body = b'{"error": "in a mood", "models": []}'
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *args: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_not_now_is_tried_again(moody: Callable[[list[Reply]], tuple[str, list[str]]]) -> None:
    url, seen = moody([(503, {"retry-after": "0"}), (429, {}), (200, {})])
    with Client(url, retry=Retry(first_s=0.01)) as client:
        assert client.models() == []
    assert len(seen) == 3


def test_patience_ends_with_the_attempts_and_with_the_deadline(
    moody: Callable[[list[Reply]], tuple[str, list[str]]],
) -> None:
    url, seen = moody([(503, {})])
    with Client(url, retry=Retry(attempts=3, first_s=0.01)) as client, pytest.raises(Unavailable, match="in a mood"):
        client.models()
    assert len(seen) == 3
    url, seen = moody([(503, {"retry-after": "60"})])
    with Client(url, timeout=1) as client, pytest.raises(Unavailable) as refused:
        client.models()
    assert (len(seen), refused.value.retry_after) == (1, 60)


def test_what_could_happen_twice_is_not_repeated(moody: Callable[[list[Reply]], tuple[str, list[str]]]) -> None:
    url, seen = moody([(500, {})])
    with Client(url) as client, pytest.raises(ServerFailed):
        client.register("m", b"x")
    assert seen == ["POST"]


def test_nobody_there_says_how_to_start_one() -> None:
    with Client("http://127.0.0.1:9", retry=Retry(attempts=1)) as client, pytest.raises(Unreachable, match="serve"):
        client.models()


def test_a_retry_waits_longer_each_time_but_never_for_ever() -> None:
    retry = Retry(attempts=100, first_s=0.1, longest_s=2)
    for attempt in range(1, 50):
        pause = retry.pause(attempt, Unavailable("busy", 503), again=False)
        assert pause is not None and pause <= min(2, 0.1 * 2 ** (attempt - 1))
    assert retry.pause(1, Unavailable("busy", 503, 5), again=False) >= 5  # type: ignore[operator]
    assert retry.pause(1, Unreachable("gone"), again=False) is None
    assert retry.pause(1, DeadlineExceeded("late"), again=True) is None

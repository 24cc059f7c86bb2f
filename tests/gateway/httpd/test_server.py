"""The server process: one line when it is ready, patience with requests when told to go, none with slow clients."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateways import RunningGateway
from tests.zoo import mlp


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[RunningGateway]:
    with RunningGateway(folder / "shared", "--no-compile", "--receive-timeout-s", "1") as running:
        yield running


def connect(gateway: RunningGateway) -> socket.socket:
    url = httpx.URL(gateway.url)
    return socket.create_connection((url.host, url.port or 80), timeout=20)


def rest_of(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
    return answer


def half_an_upload(gateway: RunningGateway, name: str) -> tuple[socket.socket, bytes]:
    """A connection that has sent half of a registration, and the other half."""
    model = mlp().SerializeToString()
    connection = connect(gateway)
    head = f"POST /v1/models/{name}/versions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(model)}\r\n\r\n"
    connection.sendall(head.encode() + model[: len(model) // 2])
    return connection, model[len(model) // 2 :]


def wait_for(condition: Callable[[], bool], patience_s: float = 20) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def listens(gateway: RunningGateway) -> bool:
    try:
        connect(gateway).close()
    except ConnectionRefusedError:
        return False
    return True


def readiness(gateway: RunningGateway) -> int:
    return httpx.get(f"{gateway.url}/v2/health/ready").status_code


def test_a_request_in_flight_is_finished_after_sigterm(folder: Path) -> None:
    with RunningGateway(folder / "drained", "--no-compile", "--drain-delay-s", "1") as gateway:
        connection, rest = half_an_upload(gateway, "late")
        wait_for(lambda: bool(list((gateway.data / "uploads").glob("upload-*"))))
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: readiness(gateway) == 503)  # still accepting, but no longer ready
        assert httpx.get(f"{gateway.url}/v2/health/live").status_code == 200
        wait_for(lambda: not listens(gateway))
        connection.sendall(rest)
        assert rest_of(connection).startswith(b"HTTP/1.1 202")
        assert gateway.process.wait(20) == 0
    assert list((gateway.data / "uploads").iterdir()) == []


def test_a_second_signal_skips_the_delay_and_a_third_the_wait(folder: Path) -> None:
    with RunningGateway(folder / "hurried", "--no-compile", "--drain-delay-s", "60") as gateway:
        connection, _ = half_an_upload(gateway, "never")
        started = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: readiness(gateway) == 503)
        gateway.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(gateway))
        assert gateway.process.poll() is None  # it waits for the upload
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(20) == 0
        assert time.monotonic() - started < 40
        connection.close()


def test_a_port_that_is_taken_is_said_at_once(folder: Path, gateway: RunningGateway) -> None:
    port = str(httpx.URL(gateway.url).port)
    with RunningGateway(folder / "other", "--port", port, ready=False) as second:
        assert second.process.wait(20) == 1
    assert "take another --port" in second.words()


def test_it_does_not_listen_beyond_loopback_without_a_key(folder: Path) -> None:
    with RunningGateway(folder / "wide", "--host", "0.0.0.0", "--no-compile", ready=False) as gateway:
        assert gateway.process.wait(20) == 1
    assert "forgeway keys create" in gateway.words()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b"408"),
        (b"GET /v2 HTTP/1.1\r\nho", b"408"),
        (b"POST /v2/models/m/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{", b"4"),
        (
            b"PUT /v1/models/m/aliases/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: 100\r\n\r\n{",
            b"408",
        ),
        (b"POST /v1/models/m/versions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nx", b"408"),
        (b"GET /v2 HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 70_000, b"431"),
        (b"not http at all\r\n\r\n", b"400"),
    ],
)
def test_requests_that_never_arrive_are_cut_off_in_our_words(
    gateway: RunningGateway, sent: bytes, status: bytes
) -> None:
    with connect(gateway) as connection:
        connection.sendall(sent)
        answer = rest_of(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"content-type: application/json\r\n" in head + b"\r\n"
    assert body.startswith(b'{"error":') and body.endswith(b"}") and body.count(b"error") == 1


def test_a_dripping_client_is_cut_off_too(gateway: RunningGateway) -> None:
    with connect(gateway) as connection:
        connection.sendall(b"POST /v1/models/m/versions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999\r\n\r\n")
        end = time.monotonic() + 10
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < end:
                connection.sendall(b"x")
                time.sleep(0.1)
    assert list((gateway.data / "uploads").iterdir()) == []


def test_a_quiet_connection_is_not_a_slow_request(gateway: RunningGateway) -> None:
    with httpx.Client(base_url=gateway.url) as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        time.sleep(2.5)
        assert client.get("/v2/health/live").json() == {"live": True}


def test_the_worker_ends_with_a_gateway_that_is_killed(folder: Path) -> None:
    with RunningGateway(folder / "killed") as gateway:
        wait_for(lambda: bool(workers(gateway)))
        (pid,) = workers(gateway)
        gateway.process.kill()
        gateway.process.wait()
        cmdline = Path(f"/proc/{pid}/cmdline")
        wait_for(lambda: not (cmdline.exists() and cmdline.read_bytes()))


def test_a_worker_that_dies_is_started_again(folder: Path) -> None:
    with RunningGateway(folder / "revived") as gateway:
        wait_for(lambda: len(workers(gateway)) == 1)
        os.kill(workers(gateway)[0], signal.SIGKILL)
        wait_for(lambda: len(workers(gateway)) == 2)


def workers(gateway: RunningGateway) -> list[int]:
    """Process ids of the workers it has started so far."""
    events = [json.loads(line) for line in gateway.words().splitlines() if line.startswith("{")]
    return [event["pid"] for event in events if event["event"] == "child started"]

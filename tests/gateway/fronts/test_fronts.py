"""Two gateway processes on one port are one gateway: every answer, every count, every change."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway.grpc.messages import SERVICE, message
from model_store.store import ModelStore
from tests import zoo
from tests.gateway.fronts.serving import (
    OWN_CONNECTION,
    Client,
    Load,
    clients,
    connect,
    counted,
    front_pid,
    grpc_load,
    infer_body,
    is_right,
    register,
    runner_pid,
)
from tests.gateways import RunningGateway

FLAGS = ("--gateways", "2", "--shared-memory")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path_factory.mktemp("fronts") / "data", *FLAGS) as running:
        client = Client(running)
        register(client, "simple", zoo.simple())
        client.close()
        yield running


@pytest.fixture
def both(gateway: RunningGateway) -> Iterator[tuple[Client, Client]]:
    """A connection to each process."""
    pair = clients(gateway)
    yield pair
    for client in pair:
        client.close()


def wait_for(condition: Callable[[], bool], patience_s: float = 20) -> None:
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def test_thousands_of_requests_over_both_protocols_get_their_own_answers_and_are_counted_exactly(gateway, both):
    before = counted(both[0])

    async def ask() -> tuple[Load, int]:
        load = Load(gateway, connections=50, each=80)
        _, right = await asyncio.gather(load.run(), grpc_load(gateway, connections=12, each=100))
        return load, right

    load, right = asyncio.run(ask())
    account = load.account
    assert (account.answered, account.wrong, account.refused, account.broken) == (4000, [], [], 0)
    assert right == 1200
    first, other = (counted(client) for client in both)  # right after: nothing is on its way between processes
    assert first == other
    assert first["ok"] - before["ok"] == 5200
    assert first["nv_inference_count"] - before["nv_inference_count"] == 5200
    assert first["forgeway_batch_size_sum"] - before["forgeway_batch_size_sum"] == 5200
    assert first["failed"] == before["failed"]


def test_both_processes_take_connections_of_both_protocols(gateway):
    from_http = clients(gateway)
    for client in from_http:
        status, answer = client.ask("POST", "/v2/models/simple/infer", infer_body(5))
        assert status == 200 and is_right(answer, 5)
        client.close()
    live = message("ServerLiveRequest")()
    before = [established(gateway, pid) for pid in (gateway.process.pid, front_pid(gateway))]
    channels = [grpc.insecure_channel(gateway.grpc, OWN_CONNECTION) for _ in range(40)]
    for channel in channels:
        call = channel.unary_unary(
            f"/{SERVICE}/ServerLive", lambda given: given.SerializeToString(), message("ServerLiveResponse").FromString
        )
        assert call(live, timeout=30).live
    after = [established(gateway, pid) for pid in (gateway.process.pid, front_pid(gateway))]
    for channel in channels:
        channel.close()
    assert all(now > then for then, now in zip(before, after, strict=True)), (before, after)


def established(gateway: RunningGateway, pid: int) -> int:
    """Connections that a process holds to the gRPC port."""
    port = int(gateway.grpc.rsplit(":", 1)[1])
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    inodes = {fields[9] for fields in map(str.split, lines) if fields[1].endswith(f":{port:04X}") and fields[3] == "01"}
    held = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    return sum(f"socket:[{inode}]" in held for inode in inodes)


def test_an_answered_change_is_in_force_whichever_process_is_asked_next(gateway, both):
    first, other = both
    for here, there in ((first, other), (other, first)):
        name = f"moving-{here.pid}"
        for seed in (1, 2):
            register(here, name, zoo.mlp(hidden=8, seed=seed))
        body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64}]}
        answers = {}
        for version in ("1", "2"):
            assert here.ask("PUT", f"/v1/models/{name}/aliases/champion", {"version": version})[0] == 200
            status, answer = there.ask("POST", f"/v2/models/{name}/infer", body)
            assert (status, answer["model_version"]) == (200, version)
            answers[version] = answer["outputs"][0]["data"]
        assert answers["1"] != answers["2"]
        assert here.ask("POST", f"/v2/repository/models/{name}/unload")[0] == 200
        assert there.ask("GET", f"/v2/models/{name}/ready")[0] == 404
        change = {"parameters": {"config": json.dumps({"max_batch_size": 7})}}
        assert here.ask("POST", f"/v2/repository/models/{name}/load", change)[0] == 200
        assert there.ask("GET", f"/v2/models/{name}/config")[1]["max_batch_size"] == 7
        assert there.ask("POST", f"/v2/models/{name}/infer", body)[0] == 200
        assert here.ask("DELETE", f"/v1/models/{name}")[0] == 200
        assert there.ask("POST", f"/v2/models/{name}/infer", body)[0] == 404
        assert there.ask("GET", f"/v2/models/{name}/stats")[0] == 400


def test_settings_and_regions_hold_in_both_and_refusals_keep_their_words(both):
    first, other = both
    for here, there in ((first, other), (other, first)):
        level = 1 if here is first else 0
        assert here.ask("POST", "/v2/logging", {"log_verbose_level": level})[0] == 200
        assert there.ask("GET", "/v2/logging")[1]["log_verbose_level"] == level
        status, answer = here.ask("POST", "/v2/logging", {"log_file": "/tmp/x"})
        assert (status, "log file" in answer["error"]) == (501, True)
        assert here.ask("POST", "/v2/trace/setting", {"trace_rate": f"{here.pid}"})[0] == 200
        assert there.ask("GET", "/v2/trace/setting")[1]["trace_rate"] == f"{here.pid}"
        region = shared_memory.SharedMemory(create=True, size=256)
        try:
            region.buf[:128] = np.arange(32, dtype=np.int32).tobytes()
            given = {"key": f"/{region.name.lstrip('/')}", "offset": 0, "byte_size": 128}
            assert here.ask("POST", "/v2/systemsharedmemory/region/r/register", given)[0] == 200
            status, answer = there.ask("POST", "/v2/systemsharedmemory/region/r/register", given)
            assert (status, "already in manager" in answer["error"]) == (400, True)
            assert [row["name"] for row in there.ask("GET", "/v2/systemsharedmemory/status")[1]] == ["r"]
            assert there.ask("POST", "/v2/models/simple/infer", from_region())[0] == 200
            assert there.ask("POST", "/v2/systemsharedmemory/region/r/unregister")[0] == 200
            assert here.ask("POST", "/v2/models/simple/infer", from_region())[0] == 404
        finally:
            region.close()
            region.unlink()


def from_region() -> dict[str, object]:
    where = {"shared_memory_region": "r", "shared_memory_byte_size": 64}
    tensor = {"shape": [1, 16], "datatype": "INT32"}
    inputs = [
        {"name": "INPUT0", **tensor, "parameters": where},
        {"name": "INPUT1", **tensor, "parameters": {**where, "shared_memory_offset": 64}},
    ]
    return {"inputs": inputs}


def test_whoever_waits_behind_a_long_batch_of_the_other_process_is_late_and_kills_no_runner(gateway, both):
    register(both[0], "slow", zoo.slow())
    before = restarts(both[0])
    turns = turns_lasting(both[0], 1.0)
    for here, there in (both, both[::-1]):
        here.connection.request("POST", "/v2/models/slow/infer", slow_body(turns))
        time.sleep(0.1)
        hasty = json.loads(infer_body(3)) | {"parameters": {"timeout": 150_000}}
        status, answer = there.ask("POST", "/v2/models/simple/infer", hasty)
        assert status in (503, 504) and answer == {"error": "Request timeout expired"}
        answer = here.connection.getresponse()
        assert answer.status == 200, answer.read()
        assert json.loads(answer.read())["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]
        status, answer = there.ask("POST", "/v2/models/simple/infer", infer_body(3))
        assert status == 200 and is_right(answer, 3)
    assert restarts(both[1]) == before


def restarts(client: Client) -> float:
    lines = client.ask("GET", "/metrics")[1].splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("forgeway_worker_restarts_total"))


def turns_lasting(client: Client, seconds: float) -> int:
    """How many turns of the slow model take `seconds` on this machine, about."""
    turns, took = 20_000, []
    for _ in range(3):
        began = time.monotonic()
        assert client.ask("POST", "/v2/models/slow/infer", slow_body(turns))[0] == 200
        took.append(time.monotonic() - began)
    return int(turns * seconds / min(took))


def slow_body(turns: int) -> bytes:
    x = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}
    asked = {"name": "turns", "shape": [1, 1], "datatype": "INT64", "data": [turns]}
    return json.dumps({"inputs": [x, asked]}).encode()


def test_a_runner_that_is_killed_costs_no_answer_in_either_process(gateway, both):
    before = counted(both[0])

    async def ask() -> Load:
        load = Load(gateway, connections=24)
        task = asyncio.create_task(load.run())
        while load.account.answered < 400:
            await asyncio.sleep(0.01)
        os.kill(runner_pid(gateway), signal.SIGKILL)
        reached = load.account.answered
        while load.account.answered < reached + 800:
            await asyncio.sleep(0.01)
        load.stopping = True
        await task
        return load

    account = asyncio.run(ask()).account
    assert (account.wrong, account.refused, account.broken) == ([], [], 0)
    assert [counted(client)["ok"] - before["ok"] for client in both] == [account.answered] * 2


def test_a_process_that_is_killed_costs_its_connections_and_no_count_and_comes_back(gateway, both):
    before = counted(both[0])
    killed = front_pid(gateway)

    async def ask() -> Load:
        load = Load(gateway, connections=24)
        task = asyncio.create_task(load.run())
        while load.account.answered < 400:
            await asyncio.sleep(0.01)
        os.kill(killed, signal.SIGKILL)
        reached = load.account.answered
        while load.account.answered < reached + 400:
            await asyncio.sleep(0.01)
        load.stopping = True
        await task
        return load

    account = asyncio.run(ask()).account
    assert (account.wrong, account.refused) == ([], [])
    assert 0 < account.broken < 24
    # An answer may have been counted and not have arrived: at most one on each of its connections.
    right_after = counted(both[0])["ok"] - before["ok"]
    assert account.answered <= right_after <= account.answered + account.broken
    wait_for(lambda: front_pid(gateway) != killed)
    again = clients(gateway)
    assert [counted(client)["ok"] - before["ok"] for client in again] == [right_after] * 2
    status, answer = again[1].ask("POST", "/v2/models/simple/infer", infer_body(9))
    assert status == 200 and is_right(answer, 9)
    assert [counted(client)["ok"] - before["ok"] for client in again] == [right_after + 1] * 2
    for client in again:
        client.close()


def test_connections_are_answered_while_a_process_is_down_and_what_held_before_holds_in_its_next_life(gateway):
    first, other = clients(gateway)
    assert first.ask("POST", "/v2/repository/models/simple/unload")[0] == 200
    assert first.ask("POST", "/v2/trace/setting", {"trace_rate": "77"})[0] == 200
    os.kill(other.pid, signal.SIGKILL)
    asking = [connect(gateway) for _ in range(20)]  # half of them to the socket of the one that is down
    for connection in asking:
        connection.request("GET", "/v2/health/live")
    for connection in asking:
        assert connection.getresponse().read() == b'{"live":true}'
        connection.close()
    wait_for(lambda: front_pid(gateway) != other.pid)
    again = clients(gateway)
    assert again[1].ask("GET", "/v2/trace/setting")[1]["trace_rate"] == "77"
    assert again[1].ask("GET", "/v2/models/simple/ready")[0] == 404
    assert again[1].ask("POST", "/v2/repository/models/simple/load")[0] == 200
    for client in again:
        assert client.ask("POST", "/v2/models/simple/infer", infer_body(1))[0] == 200
        client.close()
    first.close()


def test_a_drain_answers_what_is_inside_either_process_and_says_so_in_both(tmp_path):
    with RunningGateway(tmp_path / "drained", *FLAGS, "--drain-delay-s", "2") as running:
        busy, asked = clients(running), clients(running)
        register(busy[0], "slow", zoo.slow())
        for client in busy:
            client.connection.request("POST", "/v2/models/slow/infer", slow_body(300_000))
        time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        for client in asked:
            wait_for(lambda client=client: client.ask("GET", "/v2/health/ready")[0] == 503)
            assert client.ask("GET", "/v2/health/live")[0] == 200  # still accepting
        for client in busy:
            answer = client.connection.getresponse()
            assert answer.status == 200, answer.read()
            assert json.loads(answer.read())["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]
        assert running.process.wait(20) == 0


def test_a_key_opens_and_closes_both_processes_and_neither_outlives_the_first(tmp_path):
    with RunningGateway(tmp_path / "killed", *FLAGS, "--no-compile") as running:
        pair = clients(running)
        assert [client.ask("GET", "/v2/models/stats")[0] for client in pair] == [200, 200]
        store = ModelStore.open(running.data)
        made, secret = store.catalog.create_key(["read"])
        for client in pair:
            wait_for(lambda client=client: client.ask("GET", "/v2/models/stats")[0] == 401)
            assert client.ask("GET", "/v2/models/stats", key=secret) == (200, {"model_stats": []})
        store.catalog.revoke_key(made.id)
        store.close()
        for client in pair:
            wait_for(lambda client=client: client.ask("GET", "/v2/models/stats", key=secret)[0] == 401)
        os.kill(front_pid(running), signal.SIGKILL)
        wait_for(lambda: front_pid(running) != pair[1].pid)
        pair = clients(running)
        assert [client.ask("GET", "/v2/models/stats")[0] for client in pair] == [401, 401]  # still closed
        pids = (front_pid(running), runner_pid(running))
        running.process.kill()
        running.process.wait()
        wait_for(lambda: not any(alive(pid) for pid in pids))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def test_a_port_that_another_gateway_shares_with_its_fronts_is_taken(gateway, tmp_path):
    port = gateway.url.rsplit(":", 1)[1]
    for flags in (("--port", port), ("--grpc-port", gateway.grpc.rsplit(":", 1)[1])):
        with RunningGateway(tmp_path / flags[0], "--gateways", "2", *flags, ready=False) as second:
            assert second.process.wait(20) == 1
        assert f"take another {flags[0]}" in second.words()

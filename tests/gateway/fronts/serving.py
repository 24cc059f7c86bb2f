"""Clients that know which process of a gateway they talk to, and a load that checks every answer."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from gateway.grpc.messages import SERVICE, message
from tests.gateway.grpc_calls import request
from tests.gateways import RunningGateway

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def child_events(gateway: RunningGateway) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.words().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "child started"]


def front_pid(gateway: RunningGateway) -> int:
    """The process beside the first one; its latest life."""
    return [event["pid"] for event in child_events(gateway) if event["child"].startswith("gateway")][-1]


def runner_pid(gateway: RunningGateway) -> int:
    """A runner is a child of the first process that serves a target."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes()
            parent = int((each.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if b"gateway.running.runner_main" in words and parent == gateway.process.pid:
            return int(each.parent.name)
    raise AssertionError("there is no runner")


def owner(gateway: RunningGateway, client_port: int) -> int:
    """The process that accepted the connection from this port of ours."""
    port = int(gateway.url.rsplit(":", 1)[1])
    wanted = f"0100007F:{port:04X} 0100007F:{client_port:04X}"
    inode = next(line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if wanted in line)
    for pid in (gateway.process.pid, front_pid(gateway)):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            if each.is_symlink() and str(each.readlink()) == f"socket:[{inode}]":
                return pid
    raise AssertionError("nobody accepted it yet")


def connect(gateway: RunningGateway) -> http.client.HTTPConnection:
    host, port = gateway.url.removeprefix("http://").split(":")
    return http.client.HTTPConnection(host, int(port), timeout=30)


class Client:
    """One connection, kept alive, to one process."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.connection = connect(gateway)
        self.ask("GET", "/v2/health/live")
        self.pid = owner(gateway, self.connection.sock.getsockname()[1])

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if data is None else {"content-type": "application/json"}
        if key is not None:
            headers["x-api-key"] = key
        self.connection.request(method, path, data, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.headers.get("content-type") == "application/json" and content:
            return answer.status, json.loads(content)
        return answer.status, content.decode()

    def close(self) -> None:
        self.connection.close()


def clients(gateway: RunningGateway) -> tuple[Client, Client]:
    """One of the first process, one of the other, as soon as that is up."""
    found: dict[int, Client] = {}
    end = time.monotonic() + 30
    while time.monotonic() < end:
        client = Client(gateway)
        if found.setdefault(client.pid, client) is not client:
            client.close()
        if len(found) == 2:
            return found[gateway.process.pid], found[front_pid(gateway)]
        time.sleep(0.005)
    raise AssertionError(f"all connections went to {list(found)}")


def register(client: Client, name: str, model: Any) -> str:
    """Have it ready; the version. Its variants are not compiled: only the reference is of interest here."""
    status, answer = client.ask("POST", f"/v1/models/{name}/versions", model.SerializeToString())
    assert status == 202, answer
    for job in answer["jobs"][1:]:
        client.ask("DELETE", f"/v1/jobs/{job}")
    end = time.monotonic() + 60
    while client.ask("GET", f"/v2/models/{name}/versions/{answer['version']}/ready")[0] != 200:
        assert time.monotonic() < end, "it does not get ready"
        time.sleep(0.02)
    return str(answer["version"])


def infer_body(value: int) -> bytes:
    tensor = {"shape": [1, 16], "datatype": "INT32"}
    inputs = [
        {"name": "INPUT0", "data": [value] * 16, **tensor},
        {"name": "INPUT1", "data": list(range(16)), **tensor},
    ]
    return json.dumps({"inputs": inputs}).encode()


def is_right(answer: Any, value: int) -> bool:
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    return outputs == {
        "OUTPUT0": [value + n for n in range(16)],
        "OUTPUT1": [value - n for n in range(16)],
    }


_HEAD = b"POST /v2/models/simple/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"


@dataclass
class Account:
    """What became of the requests."""

    answered: int = 0
    wrong: list[Any] = field(default_factory=list)
    refused: list[Any] = field(default_factory=list)
    broken: int = 0
    """Connections that ended before their answer."""
    sent: int = 0


class Load:
    """Requests to the model `simple` over many connections, each of which asks again until `stop`, or `each` times."""

    def __init__(self, gateway: RunningGateway, connections: int, each: int = 1 << 30) -> None:
        self.account = Account()
        self.stopping = False
        self._gateway = gateway
        self._connections = connections
        self._each = each

    async def run(self) -> Account:
        await asyncio.gather(*(self._ask(nth) for nth in range(self._connections)))
        return self.account

    async def _ask(self, nth: int) -> None:
        host, port = self._gateway.url.removeprefix("http://").split(":")
        account = self.account
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for n in range(self._each):
                if self.stopping:
                    break
                value = nth * 100_000 + n
                body = infer_body(value)
                head = (
                    f"POST /v2/models/simple/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
                )
                account.sent += 1
                writer.write(head.encode() + body)
                answer_head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", answer_head)
                assert length is not None
                answer = json.loads(await reader.readexactly(int(length[1])))
                if not answer_head.startswith(b"HTTP/1.1 200"):
                    account.refused.append((answer_head[9:12], answer))
                elif is_right(answer, value):
                    account.answered += 1
                else:
                    account.wrong.append((value, answer))
        except (ConnectionError, asyncio.IncompleteReadError):
            account.broken += 1
        finally:
            writer.close()


async def grpc_load(gateway: RunningGateway, connections: int, each: int) -> int:
    """How many answers were right; all are asked for at once."""
    kind = message("ModelInferResponse")

    async def one(call: Any, value: int) -> bool:
        inputs = {"INPUT0": np.full((1, 16), value, np.int32), "INPUT1": np.arange(16, dtype=np.int32).reshape(1, 16)}
        answer = await call(request("simple", inputs), timeout=60)
        total = np.frombuffer(answer.raw_output_contents[0], np.int32)
        return bool(np.array_equal(total, value + np.arange(16)))

    channels = [grpc.aio.insecure_channel(gateway.grpc, OWN_CONNECTION) for _ in range(connections)]
    calls = [
        channel.unary_unary(
            f"/{SERVICE}/ModelInfer", lambda given: given.SerializeToString(), kind.FromString
        )
        for channel in channels
    ]  # fmt: skip
    asked = [one(call, nth * 10_000 + n) for nth, call in enumerate(calls) for n in range(each)]
    right = await asyncio.gather(*asked)
    for channel in channels:
        await channel.close()
    return sum(right)


def counted(client: Client, model: str = "simple") -> Counter[str]:
    """What `/metrics` and the statistics say of a model: they must say the same."""
    metrics = client.ask("GET", "/metrics")[1]
    found: Counter[str] = Counter()
    for name, labels, value in re.findall(r"^(\w+)\{([^}]*)\} ([0-9.e+-]+)$", metrics, re.MULTILINE):
        if f'model="{model}"' not in labels:
            continue
        if name == "forgeway_requests_total":
            found["ok" if 'code="200"' in labels else "failed"] += int(value)
        elif name in ("forgeway_request_duration_seconds_count", "forgeway_batch_size_sum", "nv_inference_count"):
            found[name] += int(float(value))
        elif name == "nv_inference_exec_count":
            found["batches"] += int(value)
    status, answer = client.ask("GET", f"/v2/models/{model}/stats")
    assert status == 200, answer
    stats = answer["model_stats"]
    assert sum(one["inference_stats"]["success"]["count"] for one in stats) == found["ok"]
    assert sum(one["inference_count"] for one in stats) == found["nv_inference_count"]
    assert sum(one["execution_count"] for one in stats) == found["batches"]
    return found

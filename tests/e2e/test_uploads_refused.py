"""Bad uploads over HTTP: each is refused with a 4xx that says what is wrong, and nothing of it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.demo.process import GatewayProcess
from tests import zoo
from tests.e2e.hostile import MODELS, SAMPLES

pytestmark = pytest.mark.xdist_group("e2e")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("refused") / "data", flags=["--no-compile"]) as running:
        yield running


def kept(data: Path) -> list[str]:
    """Blobs, and whatever uploads or intakes left behind."""
    files = [path for path in data.rglob("*") if path.is_file()]
    return [
        str(path.relative_to(data))
        for path in files
        if re.fullmatch("[0-9a-f]{64}", path.name) or {"uploads", "work"} & set(path.relative_to(data).parts[:-1])
    ]


def refusal(gateway: GatewayProcess, parts: dict[str, bytes]) -> str:
    """Register; the words of the refusal. Fails when it is accepted, blamed on the server, or leaves anything."""
    files = {name: (f"{name}.bin", data) for name, data in parts.items()}
    answer = httpx.post(f"{gateway.url}/v1/models/victim/versions", files=files, timeout=60)
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text}"
    assert answer.headers["content-type"] == "application/json"
    words = answer.json()["error"]
    assert isinstance(words, str)
    assert "Traceback" not in words and str(gateway.data) not in words
    assert kept(gateway.data) == []
    return words


@pytest.mark.parametrize("name", MODELS)
def test_bad_model_is_refused_in_words_and_leaves_nothing(gateway: GatewayProcess, name: str) -> None:
    make, said = MODELS[name]
    assert said in refusal(gateway, {"model": make()})


@pytest.mark.parametrize("name", SAMPLES)
def test_bad_samples_are_refused_in_words_and_leave_nothing(gateway: GatewayProcess, name: str) -> None:
    make, said = SAMPLES[name]
    assert said in refusal(gateway, {"model": zoo.mlp().SerializeToString(), "samples": make()})


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (b'{"objectiv": "latency"}', "objective"),
        (b'{"budget_seconds": -1}', "budget_seconds"),
        (b'{"targets": ["openvino"]}', "openvino-cpu"),
        (b"[1, 2]", "object"),
        (b"{", "JSON"),
    ],
)
def test_bad_policy_is_refused_in_words(gateway: GatewayProcess, policy: bytes, said: str) -> None:
    assert said in refusal(gateway, {"model": zoo.mlp().SerializeToString(), "policy": policy})


@pytest.mark.parametrize("name", ["stats", "..", "a b", "-x", "x" * 129, "%2e%2e%2fetc"])
def test_bad_name_is_refused(gateway: GatewayProcess, name: str) -> None:
    body = zoo.mlp().SerializeToString()
    answer = httpx.post(f"{gateway.url}/v1/models/{name}/versions", content=body, timeout=60)
    assert answer.status_code in (400, 404, 405)
    assert kept(gateway.data) == []


def test_after_all_of_it_nothing_is_registered_and_a_good_model_is_taken(gateway: GatewayProcess) -> None:
    assert httpx.get(f"{gateway.url}/v1/models").json()["models"] == []
    body = zoo.mlp().SerializeToString()
    assert httpx.post(f"{gateway.url}/v1/models/good/versions", content=body, timeout=60).status_code == 202
    assert len(kept(gateway.data)) == 1

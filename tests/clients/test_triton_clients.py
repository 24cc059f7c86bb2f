"""tritonclient and KServe's SDK, unmodified, in their own environment: each script is one client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.models import Served, serving
from tests.clients.running import NAMES, PYTHON, run_script

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="the clients' environment is missing: make clients"),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("clients"), "--shared-memory") as gateway:
        yield gateway


@pytest.mark.parametrize("script", NAMES)
def test_every_method_of_the_client_is_answered(gateway: Served, script: str) -> None:
    done = run_script(gateway, script)
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr[-2000:]}"

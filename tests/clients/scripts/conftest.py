"""What the scripts share. They run in the clients' own environment, never in Forgeway's: `pytest FILE` with
FORGEWAY_HTTP and FORGEWAY_GRPC saying where the gateway of tests/clients/models.py listens (host:port)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def http_address() -> str:
    return os.environ["FORGEWAY_HTTP"]


@pytest.fixture(scope="session")
def grpc_address() -> str:
    return os.environ["FORGEWAY_GRPC"]


@pytest.fixture(scope="session")
def model_bytes() -> bytes:
    """The file of the model `simple`."""
    return Path(os.environ["FORGEWAY_SIMPLE"]).read_bytes()


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Two rows for each input of `simple`."""
    left = np.arange(32, dtype=np.int32).reshape(2, 16)
    return left, np.full((2, 16), 3, np.int32)


class Regions:
    """Shared memory made by tritonclient's own functions, under keys that no other run uses."""

    def __init__(self) -> None:
        import tritonclient.utils.shared_memory as memory

        self._memory = memory

    def key(self, name: str) -> str:
        return f"/forgeway_test_{os.getpid()}_{name}"

    @contextmanager
    def made(self, name: str, size: int) -> Iterator[Any]:
        region = self._memory.create_shared_memory_region(name, self.key(name), size)
        try:
            yield region
        finally:
            self._memory.destroy_shared_memory_region(region)

    def write(self, region: Any, arrays: Any) -> None:
        self._memory.set_shared_memory_region(region, list(arrays))

    def read(self, region: Any, dtype: Any, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
        return np.array(self._memory.get_contents_as_numpy(region, dtype, shape, offset))


@pytest.fixture
def regions() -> Regions:
    return Regions()

"""What is out of use is packed while nobody compiles."""

import os
import threading
import time

import pytest

from compilers.tidying import keep_tidy
from model_store.entities import JobKind, JobState
from model_store.store import ModelStore
from tests.rows import register


@pytest.fixture
def store(tmp_path):
    opened = ModelStore.open(tmp_path / "data")
    yield opened
    opened.close()


def out_of_use(store: ModelStore) -> str:
    digest = store.blobs.put_bytes(b"weights " * 50_000)
    os.utime(store.blobs.path(digest), (1, 1))
    return digest


def is_packed(store: ModelStore, digest: str, patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while (found := store.blobs.footprint(digest)).plain is not None and time.monotonic() < end:
        time.sleep(0.01)
    return found.plain is None


def test_it_packs_between_jobs_and_never_beside_one(store):
    register(store.catalog)
    job = store.catalog.claim("w", [JobKind.REFERENCE], 60.0)
    digest, stop = out_of_use(store), threading.Event()
    thread = threading.Thread(target=keep_tidy, args=(store, stop, 0.02))
    thread.start()
    try:
        assert not is_packed(store, digest, 0.5)
        store.catalog.finish(job, JobState.FAILED, "why not")
        assert is_packed(store, digest, 20)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()

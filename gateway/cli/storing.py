"""Commands that open the store themselves instead of asking a gateway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.serving import effective

if TYPE_CHECKING:
    from model_store.store import ModelStore


@contextlib.contextmanager
def opened_store(data: Path | None, database_url: str | None) -> Iterator[ModelStore]:
    """The store named by flags, environment or forgeway.toml. Raises StoreUnusable."""
    from model_store.store import ModelStore

    settings = effective({"data": data, "database_url": database_url})
    store = ModelStore.open(settings.data, settings.database_url)
    try:
        yield store
    finally:
        store.close()

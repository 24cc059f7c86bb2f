"""The catalog: every row of the store, behind verbs that are one transaction each.

The verbs live with their idea (versions, jobs, snapshot, steps, keys); a Catalog is all of them over one database.
"""

from __future__ import annotations

from sqlalchemy import URL, select

from model_store import database
from model_store.database import Database
from model_store.entities import Digest
from model_store.jobs import Jobs
from model_store.keys import Keys
from model_store.migrations import migrate
from model_store.snapshot import Snapshots
from model_store.steps import Steps
from model_store.tables import steps, variants, versions
from model_store.versions import Versions


class Catalog(Versions, Jobs, Snapshots, Steps, Keys):
    """Safe to share between threads; every process opens its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def connect(cls, url: str | URL) -> Catalog:
        """Open the catalog at `url` and bring its schema up to date. Raises StoreUnusable."""
        opened = database.connect(url)
        try:
            migrate(opened)
        except BaseException:
            opened.close()
            raise
        return cls(opened)

    def live_blobs(self) -> set[Digest]:
        """Digests that some row names: every other blob is garbage once it is older than any running upload."""
        with self._database.read() as connection:
            live: set[Digest] = set()
            for row in connection.execute(select(versions.c.model, versions.c.samples)):
                live.update(digest for digest in row if digest is not None)
            for artifact in connection.execute(select(variants.c.artifact)).scalars():
                live.update(artifact.files.values() if artifact is not None else ())
            for blobs in connection.execute(select(steps.c.blobs)).scalars():
                live.update(blobs)
            return live

    def close(self) -> None:
        self._database.close()

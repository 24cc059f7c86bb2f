"""The catalog: every row of the store, behind verbs that are one transaction each.

The verbs live with their idea (versions, jobs, snapshot, steps, keys); a Catalog is all of them over one database.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import URL, select
from sqlalchemy.exc import DBAPIError

from model_store import database
from model_store.database import Database
from model_store.entities import Digest
from model_store.errors import StoreUnusable
from model_store.jobs import Jobs
from model_store.keys import Keys
from model_store.migrations import migrate
from model_store.snapshot import Snapshots
from model_store.steps import Steps
from model_store.tables import steps, variants, versions
from model_store.versions import Versions


@dataclass(frozen=True, slots=True)
class Reference:
    """A row that names a blob. `what` is model, samples, variant or step; `row` is its key."""

    digest: Digest
    what: str
    row: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} {'/'.join(self.row)}"


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
        except DBAPIError as exc:
            opened.close()
            raise StoreUnusable(f"the catalog at {opened.url} cannot be opened: {exc.orig}") from exc
        except BaseException:
            opened.close()
            raise
        return cls(opened)

    def references(self) -> tuple[Reference, ...]:
        """Every naming of a blob by a row."""
        found: list[Reference] = []
        with self._database.read() as connection:
            sources = select(versions.c.name, versions.c.version, versions.c.model, versions.c.samples)
            for name, version, model, samples in connection.execute(sources):
                found.append(Reference(model, "model", (name, version)))
                if samples is not None:
                    found.append(Reference(samples, "samples", (name, version)))
            built = select(variants.c.name, variants.c.version, variants.c.id, variants.c.artifact)
            for name, version, variant, artifact in connection.execute(built.where(variants.c.artifact.is_not(None))):
                found += [Reference(digest, "variant", (name, version, variant)) for digest in artifact.files.values()]
            for key, blobs in connection.execute(select(steps.c.key, steps.c.blobs)):
                found += [Reference(digest, "step", (key,)) for digest in blobs]
        return tuple(found)

    def live_blobs(self) -> set[Digest]:
        """Digests that some row names: every other blob is garbage once it is older than any running upload."""
        return {reference.digest for reference in self.references()}

    def close(self) -> None:
        self._database.close()

"""Everything a gateway needs to route, read in one transaction together with the number of the change it shows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, select

from model_store.database import Database
from model_store.entities import Model, ModelVersion, Variant
from model_store.tables import changes, variants, versions
from model_store.versions import ANSWERING, REFERENCE_FIRST, read_models

Served = tuple[ModelVersion, tuple[Variant, ...]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`models` holds every model, by name, with its answering versions (compiling or ready, oldest first) and of each
    every variant that has an artifact, whatever its verdict, the reference first."""

    sequence: int
    models: tuple[tuple[Model, tuple[Served, ...]], ...]


class Snapshots:
    _database: Database

    def sequence(self) -> int:
        """Rises with every change that can matter to routing (and to keys). Cheap: meant to be asked ten times a
        second."""
        return self._database.sequence()

    def unchanged_sequence(self) -> int | None:
        """`sequence` if that can be told at once: fit for an event loop, without a thread. None: ask `sequence`."""
        return self._database.unchanged_sequence()

    def snapshot(self) -> Snapshot:
        """The state to route by, whole and of one moment."""
        with self._database.read() as connection:
            sequence = connection.execute(select(changes.c.sequence)).scalar_one()
            answering = select(versions).where(versions.c.status.in_(ANSWERING))
            of_answering = and_(versions.c.name == variants.c.name, versions.c.version == variants.c.version)
            with_artifact = (
                select(variants)
                .join(versions, of_answering)
                .where(versions.c.status.in_(ANSWERING), variants.c.artifact.is_not(None))
            )
            tried: dict[tuple[str, str], list[Variant]] = {}
            for row in connection.execute(with_artifact.order_by(*REFERENCE_FIRST)):
                tried.setdefault((row.name, row.version), []).append(Variant(**row._mapping))
            served: dict[str, list[Served]] = {}
            for row in connection.execute(answering.order_by(versions.c.version)):
                version = ModelVersion(**row._mapping)
                served.setdefault(row.name, []).append((version, tuple(tried.get((row.name, row.version), ()))))
            return Snapshot(sequence, tuple((m, tuple(served.get(m.name, ()))) for m in read_models(connection)))

    def serving(self) -> tuple[Served, ...]:
        """The answering versions of `snapshot()`, without their models."""
        return tuple(served for _, versions_served in self.snapshot().models for served in versions_served)

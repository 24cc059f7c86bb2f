"""Results of finished steps by their key: a crash resumes after the last one, and a twin reuses them all.

The key is the sha256 of everything that can change the result (inputs, parameters, tool versions, hardware), so two
writers of one key wrote the same thing and the first one stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, update

from model_store.columns import moment
from model_store.database import Database
from model_store.entities import Digest
from model_store.tables import steps


class Steps:
    _database: Database

    def step_result(self, key: str) -> dict[str, Any] | None:
        """The result recorded under `key`, or None. Asking renews the age that `forget_steps` counts from."""
        asked = update(steps).where(steps.c.key == key).values(used_at=moment()).returning(steps.c.result)
        with self._database.write() as connection:
            result: dict[str, Any] | None = connection.execute(asked).scalar()
            return result

    def record_step(self, key: str, name: str, result: Mapping[str, Any], blobs: Sequence[Digest] = ()) -> None:
        """Keep the result of a finished step and, as long as it is kept, the blobs it names (durable already)."""
        with self._database.write() as connection:
            row = {"key": key, "name": name, "result": dict(result), "blobs": tuple(blobs)}
            connection.execute(
                self._database.insert(steps)
                .values(row | {"created_at": moment(), "used_at": moment()})
                .on_conflict_do_nothing()
            )

    def forget_step(self, key: str) -> None:
        """Drop one result, so that the step runs again; nothing happens when there is none."""
        with self._database.write() as connection:
            connection.execute(delete(steps).where(steps.c.key == key))

    def forget_steps(self, unused_for_s: float) -> int:
        """Drop results nobody asked for in that time, so that their blobs can be collected; returns how many."""
        old = steps.c.used_at < moment() - unused_for_s
        with self._database.write() as connection:
            return connection.execute(delete(steps).where(old)).rowcount

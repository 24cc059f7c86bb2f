"""Models, their versions, aliases and variants: registration, look-up, deletion. One transaction a verb."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, case, delete, insert, select, update

from model_store import queueing
from model_store.columns import is_number
from model_store.database import Database
from model_store.entities import REFERENCE, Digest, Job, Model, ModelVersion, Signature, Variant, Verdict, VersionStatus
from model_store.errors import Conflict, NotFound
from model_store.names import valid_alias, valid_name
from model_store.tables import aliases, models, variants, version_counters, versions

CHAMPION = "champion"
"""The alias that answers when a request names no version."""

ANSWERING = (VersionStatus.COMPILING, VersionStatus.READY)
"""Statuses of versions that answer requests."""


REFERENCE_FIRST = (case((variants.c.id == REFERENCE, 0), else_=1), variants.c.created_at, variants.c.id)
"""The order of variants everywhere: the reference, then the oldest."""


class Versions:
    """What has been registered. `version` is a decimal string; numbers rise per name and are never used twice."""

    _database: Database

    def register(
        self,
        name: str,
        *,
        model: Digest,
        size_bytes: int,
        signature: Signature,
        samples: Digest | None,
        policy: Mapping[str, Any],
        targets: Sequence[str],
        parameters: int,
        operators: Mapping[str, int],
    ) -> tuple[ModelVersion, tuple[Job, ...]]:
        """A new version with its jobs: the reference, and one compilation per target. The blobs are durable already.

        Raises InvalidName.
        """
        valid_name(name)
        with self._database.change() as connection:
            now = self._database.now(connection)
            connection.execute(self._database.insert(models).values(name=name, created_at=now).on_conflict_do_nothing())
            counter = self._database.insert(version_counters).values(name=name, last=1)
            number = connection.execute(
                counter.on_conflict_do_update(
                    index_elements=["name"], set_={"last": version_counters.c.last + 1}
                ).returning(version_counters.c.last)
            ).scalar_one()
            version = ModelVersion(
                name=name,
                version=str(number),
                status=VersionStatus.REGISTERED,
                reason="",
                model=model,
                size_bytes=size_bytes,
                signature=signature,
                samples=samples,
                policy=policy,
                parameters=parameters,
                operators=operators,
                created_at=now,
            )
            connection.execute(
                insert(versions).values({column.name: getattr(version, column.name) for column in versions.c})
            )
            jobs = queueing.add(connection, version, targets, request={}, reference=True, now=now)
        return version, jobs

    def models(self) -> tuple[Model, ...]:
        with self._database.read() as connection:
            return read_models(connection)

    def model(self, name: str) -> Model:
        """Raises NotFound, with the nearest name."""
        with self._database.read() as connection:
            return _model(connection, name)

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Oldest first. Raises NotFound."""
        with self._database.read() as connection:
            _model(connection, name)
            return _versions(connection, name)

    def version(self, name: str, version: str) -> ModelVersion:
        """Raises NotFound, saying which versions there are."""
        with self._database.read() as connection:
            return find_version(connection, name, version)

    def resolve(self, name: str, ref: str | None = None) -> ModelVersion:
        """The version that `ref` means: a number, an alias, or None.

        None is the alias `champion`; without one the newest version that answers; without one the newest at all.
        Raises NotFound.
        """
        with self._database.read() as connection:
            if ref is not None and is_number(ref):
                return find_version(connection, name, ref)
            model = _model(connection, name)
            if ref is None and CHAMPION not in model.aliases:
                known = _versions(connection, name)
                if not known:
                    raise NotFound(f"model {name!r} has no version any more; register one")
                return next((v for v in reversed(known) if v.status in ANSWERING), known[-1])
            alias = CHAMPION if ref is None else ref
            if alias not in model.aliases:
                raise NotFound(_no_version(model, alias))
            return find_version(connection, name, model.aliases[alias])

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point `alias` at `version`, wherever it pointed before. Raises InvalidName, NotFound."""
        valid_alias(alias)
        with self._database.change() as connection:
            find_version(connection, name, version)
            row = self._database.insert(aliases).values(name=name, alias=alias, version=version)
            connection.execute(
                row.on_conflict_do_update(index_elements=["name", "alias"], set_={"version": row.excluded.version})
            )

    def delete_alias(self, name: str, alias: str) -> None:
        """Raises NotFound."""
        with self._database.change() as connection:
            gone = connection.execute(delete(aliases).where(aliases.c.name == name, aliases.c.alias == alias))
            if gone.rowcount == 0:
                raise NotFound(_no_version(_model(connection, name), alias))

    def delete_version(self, name: str, version: str) -> None:
        """Remove the version and its variants, cancel its jobs. Raises NotFound; Conflict while an alias means it."""
        with self._database.change() as connection:
            find_version(connection, name, version)
            pointing = [alias for alias, number in _model(connection, name).aliases.items() if number == version]
            if pointing:
                raise Conflict(
                    f"version {version} of {name!r} is what {', '.join(pointing)} means; move or delete the alias first"
                )
            queueing.cancel_open(connection, name, version, "the version was deleted", self._database.now(connection))
            connection.execute(delete(versions).where(versions.c.name == name, versions.c.version == version))

    def delete_model(self, name: str) -> None:
        """Remove the model with its aliases and versions, cancel its jobs. Raises NotFound."""
        with self._database.change() as connection:
            _model(connection, name)
            queueing.cancel_open(connection, name, None, "the model was deleted", self._database.now(connection))
            connection.execute(delete(aliases).where(aliases.c.name == name))
            connection.execute(delete(versions).where(versions.c.name == name))
            connection.execute(delete(models).where(models.c.name == name))

    def variants(self, name: str, version: str) -> tuple[Variant, ...]:
        """Every variant tried, the reference first, whatever its verdict. Raises NotFound."""
        with self._database.read() as connection:
            find_version(connection, name, version)
            rows = connection.execute(
                select(variants)
                .where(variants.c.name == name, variants.c.version == version)
                .order_by(*REFERENCE_FIRST)
            )
            return tuple(Variant(**row._mapping) for row in rows)

    def variant(self, name: str, version: str, id: str) -> Variant:  # noqa: A002 - the entity's own word
        """Raises NotFound, with the nearest id."""
        known = {variant.id: variant for variant in self.variants(name, version)}
        if id not in known:
            raise NotFound(f"version {version} of {name!r} has no variant {id!r}" + nearest(id, known))
        return known[id]

    def withdraw(self, name: str, version: str, id: str, reason: str) -> None:  # noqa: A002
        """Reject a published variant after the fact (its bytes are damaged, it crashes runners): it serves no more.

        Raises NotFound; Conflict for the reference, without which the version is nothing.
        """
        if id == REFERENCE:
            raise Conflict(f"the reference of {name}/{version} cannot be withdrawn; delete the version instead")
        where = (variants.c.name == name, variants.c.version == version, variants.c.id == id)
        withdrawn = update(variants).where(*where).values(verdict=Verdict.REJECTED, reason=reason, artifact=None)
        with self._database.change() as connection:
            if connection.execute(withdrawn).rowcount == 0:
                raise NotFound(f"version {version} of {name!r} has no variant {id!r}")


def find_version(connection: Connection, name: str, version: str) -> ModelVersion:
    """Raises NotFound, saying what there is."""
    if is_number(version):
        where = (versions.c.name == name, versions.c.version == version)
        row = connection.execute(select(versions).where(*where)).first()
        if row is not None:
            return ModelVersion(**row._mapping)
    raise NotFound(_no_version(_model(connection, name), version))


def read_models(connection: Connection, name: str | None = None) -> tuple[Model, ...]:
    """All models by name, or the one, with the numbers of their versions (oldest first) and their aliases."""

    def of_interest(statement: Any, column: Any) -> Any:
        return statement if name is None else statement.where(column == name)

    numbers: dict[str, list[str]] = {}
    for row in connection.execute(
        of_interest(select(versions.c.name, versions.c.version), versions.c.name).order_by(versions.c.version)
    ):
        numbers.setdefault(row.name, []).append(row.version)
    pointing: dict[str, dict[str, str]] = {}
    for row in connection.execute(of_interest(select(aliases), aliases.c.name).order_by(aliases.c.alias)):
        pointing.setdefault(row.name, {})[row.alias] = row.version
    rows = connection.execute(of_interest(select(models), models.c.name).order_by(models.c.name))
    return tuple(
        Model(row.name, row.created_at, tuple(numbers.get(row.name, ())), pointing.get(row.name, {})) for row in rows
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that says what was not found: the nearest known word, or what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(names[:10])}" + (", ..." if len(names) > 10 else "") if names else ""


def _model(connection: Connection, name: str) -> Model:
    found = read_models(connection, name)
    if not found:
        raise NotFound(f"no model {name!r}" + nearest(name, connection.execute(select(models.c.name)).scalars()))
    return found[0]


def _versions(connection: Connection, name: str) -> tuple[ModelVersion, ...]:
    rows = connection.execute(select(versions).where(versions.c.name == name).order_by(versions.c.version))
    return tuple(ModelVersion(**row._mapping) for row in rows)


def _no_version(model: Model, ref: str) -> str:
    known = f"versions: {', '.join(model.versions) or 'none'}; aliases: {', '.join(model.aliases) or 'none'}"
    return f"model {model.name!r} has neither version nor alias {ref!r} ({known})"

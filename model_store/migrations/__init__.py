"""The history of the catalog's schema: one linear line of Alembic revisions, run when a catalog is opened.

Any number of processes may open one catalog at once: the upgrade is one transaction that begins by taking the
database's write lock (SQLite: BEGIN IMMEDIATE; PostgreSQL: an advisory lock), and whoever comes second finds it done.
A catalog that is up to date is recognised without importing Alembic, which a serving process does not need.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError

from model_store.database import Database
from model_store.errors import StoreUnusable

HEAD = "0002"
"""The newest revision; a test compares it with the scripts."""

_ADVISORY_LOCK = 0x666F726765  # "forge": any number of our own


def migrate(database: Database, to: str = HEAD) -> None:
    """Bring the catalog to revision `to`. Raises StoreUnusable for a catalog of a newer Forgeway."""
    if _revision(database) == to:
        return
    with database.write() as connection:
        if database.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        _run(connection, to)


def _revision(database: Database) -> str | None:
    try:
        with database.read() as connection:
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    except DatabaseError:  # an empty database has no such table yet
        return None


def _run(connection: Connection, to: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        if to == HEAD:
            command.upgrade(config, to)
        else:
            command.downgrade(config, to)
    except CommandError as exc:
        raise StoreUnusable(
            f"the catalog is of a newer Forgeway (this one knows revisions up to {HEAD}): {exc}; upgrade Forgeway"
        ) from exc

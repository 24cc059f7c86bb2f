"""The one door to SQL: how the catalog's database is opened, and the three kinds of transaction it knows.

SQLite is for one machine, PostgreSQL for one or many. Both give every transaction here the same promise: it sees one
state of the catalog, and what it writes is on disk when it returns.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError

from model_store.columns import moment
from model_store.errors import StoreUnusable
from model_store.file_watch import FileWatch
from model_store.tables import changes

BUSY_TIMEOUT_S = 5.0
"""How long a SQLite transaction waits for another one to end before it fails."""

NETWORK_FILE_SYSTEMS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB2",
    0xFF534D42: "CIFS",
    0x5346414F: "AFS",
    0x6B414653: "kAFS",
    0x73757245: "Coda",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x7461636F: "OCFS2",
}
"""`statfs` types (man 2 statfs) whose memory is not shared between machines: SQLite's WAL would be torn there."""


class Database:
    """An engine and its transactions. Safe to share between threads; open one per process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.dialect: str = engine.dialect.name
        self.url = engine.url.render_as_string(hide_password=True)
        postgres = self.dialect == "postgresql"
        self._writer = engine.execution_options(immediate=True)
        # One snapshot for all statements of a reader; SQLite gives that to every transaction anyway.
        self._reader = engine.execution_options(isolation_level="REPEATABLE READ") if postgres else engine
        self._glance = engine.execution_options(isolation_level="AUTOCOMMIT") if postgres else engine
        self._watch = None if postgres or engine.url.database is None else FileWatch(Path(engine.url.database))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state and changes nothing; it never waits for writers."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write: committed when the block ends, rolled back when it raises."""
        with self._writer.begin() as connection:
            yield connection

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """A `write` that can change routing: it raises the sequence.

        The sequence comes first on purpose. Its row is then held until the commit, so on PostgreSQL as on SQLite such
        transactions run one after another: followers see numbers in the order of commits, and no two can deadlock.
        """
        with self._writer.begin() as connection:
            connection.execute(update(changes).values(sequence=changes.c.sequence + 1))
            yield connection

    def sequence(self) -> int:
        """The number of the newest change: asked many times a second, so it costs microseconds where it can."""
        if self._watch is not None:
            return self._watch.value(self._read_sequence)
        return self._read_sequence()

    def unchanged_sequence(self) -> int | None:
        """`sequence` if that can be told at once, without waiting for anything; else None."""
        return None if self._watch is None else self._watch.unchanged()

    def _read_sequence(self) -> int:
        """One indexed read, no transaction around it."""
        with self._glance.connect() as connection:
            sequence: int = connection.execute(_SEQUENCE).scalar_one()
            return sequence

    def insert(self, table: Table) -> Any:
        """An INSERT that knows ON CONFLICT (both dialects speak the same form, through two classes)."""
        return postgresql.insert(table) if self.dialect == "postgresql" else sqlite.insert(table)

    def now(self, connection: Connection) -> float:
        """POSIX seconds by the database's own clock."""
        return connection.execute(_NOW).scalar_one()

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._engine.dispose()


_SEQUENCE = select(changes.c.sequence)
_NOW = select(moment())


def connect(url: str | URL) -> Database:
    """Open the database at `url`. Raises StoreUnusable when it cannot be used safely, saying what would do."""
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return Database(_sqlite_engine(parsed))
    try:
        # pre_ping: a pooled connection may be older than the last restart of the server.
        return Database(create_engine(parsed, pool_pre_ping=True))
    except ModuleNotFoundError as exc:
        raise StoreUnusable(f"a catalog on PostgreSQL needs {exc.name}: pip install 'forgeway[postgres]'") from exc


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise StoreUnusable(
            "the catalog's URL is not one; sqlite:///FILE or postgresql://USER@HOST/DATABASE is"
        ) from exc
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if parsed.database in (None, "", ":memory:"):
            raise StoreUnusable("a catalog in memory would be lost with its process; give it a file: sqlite:///FILE")
        return parsed
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreUnusable(
        f"no catalog on {parsed.drivername!r}; there are sqlite:///FILE and postgresql://USER@HOST/DATABASE"
    )


def _sqlite_engine(url: URL) -> Engine:
    assert url.database is not None
    _refuse_network(Path(url.database).absolute().parent)
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # the driver shall not begin transactions of its own: `_begin_sqlite` does
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    _demand_wal(connection)
    # FULL: with NORMAL the last commits may be lost with the power, and a worker was told they are safe.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _demand_wal(connection: sqlite3.Connection) -> None:
    """WAL lets readers read while a writer writes. SQLite reports failure by naming the mode it kept."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as exc:
            # The switch itself does not wait for busy_timeout, and two processes may open a new file at once.
            if "locked" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StoreUnusable(
            f"this file system gives SQLite no shared memory (journal mode stayed {mode!r}, WAL is needed); "
            "put the data folder on a local disk, or the catalog on PostgreSQL with --database-url"
        )


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once, without waiting, when another one wrote meanwhile;
    # writers therefore take the lock when they begin, where busy_timeout does apply.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _refuse_network(folder: Path) -> None:
    kind = NETWORK_FILE_SYSTEMS.get(file_system_type(folder))
    if kind is not None:
        raise StoreUnusable(
            f"the catalog would lie on {kind}, where SQLite loses data; "
            "put the data folder on a local disk, or the catalog on PostgreSQL with --database-url"
        )


def file_system_type(folder: Path) -> int:
    """`f_type` of statfs(2) (`os.statvfs` does not tell it). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_long * 32)()  # struct statfs is 120 bytes on 64-bit Linux and begins with f_type
    if libc.statfs(os.fsencode(folder), ctypes.byref(buffer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
    return buffer[0] & 0xFFFFFFFF

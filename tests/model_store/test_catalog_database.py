"""How the catalog's database is opened: what SQLite must promise, and where it must not lie."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from model_store import database
from model_store.catalog import Catalog
from model_store.errors import StoreUnusable
from model_store.store import ModelStore
from tests.rows import register


def test_every_connection_is_durable_and_checks_its_references(tmp_path: Path) -> None:
    opened = database.connect(f"sqlite:///{tmp_path / 'catalog.db'}")
    for transaction in (opened.read, opened.write):
        with transaction() as connection:
            pragmas = {
                name: connection.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
            }
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 5000, "foreign_keys": 1}
    opened.close()


def test_writers_take_the_lock_when_they_begin_and_readers_do_not(tmp_path: Path) -> None:
    catalog = Catalog.connect(f"sqlite:///{tmp_path / 'catalog.db'}")
    probe = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None, timeout=0)
    with catalog._database.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        probe.execute("BEGIN IMMEDIATE")
    with catalog._database.read() as connection:
        connection.execute(text("SELECT * FROM models"))
        probe.execute("BEGIN IMMEDIATE")
        probe.execute("ROLLBACK")
    probe.close()
    catalog.close()


def test_a_writer_waits_for_the_one_before_it(tmp_path: Path) -> None:
    catalog = Catalog.connect(f"sqlite:///{tmp_path / 'catalog.db'}")
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    assert register(catalog)[0].version == "1"
    other.close()
    catalog.close()


def test_a_reader_sees_one_state_while_others_write(tmp_path: Path) -> None:
    catalog = Catalog.connect(f"sqlite:///{tmp_path / 'catalog.db'}")
    with catalog._database.read() as connection:
        count = text("SELECT count(*) FROM versions")
        assert connection.execute(count).scalar() == 0
        register(catalog)
        assert connection.execute(count).scalar() == 0
    catalog.close()


def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = database.file_system_type(tmp_path)
    assert here not in database.NETWORK_FILE_SYSTEMS
    monkeypatch.setitem(database.NETWORK_FILE_SYSTEMS, here, "NFS")
    with pytest.raises(StoreUnusable, match=r"NFS.*local disk.*--database-url"):
        ModelStore.open(tmp_path / "data")
    assert not (tmp_path / "data" / "catalog.db").exists()


def test_a_file_that_is_no_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        database.file_system_type(tmp_path / "absent")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite://", "give it a file"),
        ("sqlite:///:memory:", "give it a file"),
        ("mysql://root@host/db", "sqlite:///FILE and postgresql://"),
        ("just words", "sqlite:///FILE or postgresql://"),
    ],
)
def test_an_url_that_cannot_be_a_catalog_says_what_can(url: str, hint: str) -> None:
    with pytest.raises(StoreUnusable, match=hint):
        Catalog.connect(url)


def test_a_server_that_does_not_answer_is_named_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="cannot be opened") as refused:
        Catalog.connect(f"postgresql://somebody:secret-word@/nowhere?host={tmp_path}")
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_that_cut_every_connection_is_reached_again(catalog: Catalog) -> None:
    register(catalog)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    with pytest.raises(DBAPIError), catalog._database.write() as connection:
        connection.execute(text(others))
    assert catalog.sequence() == catalog.snapshot().sequence
    assert register(catalog)[0].version == "2"


def test_opening_a_catalog_that_is_up_to_date_loads_nothing_a_gateway_does_not_need(store: ModelStore) -> None:
    code = (
        "import sys; from pathlib import Path; from model_store.store import ModelStore; "
        f"ModelStore.open(Path({str(store.work.parent)!r})).close(); "
        "print([name for name in ('alembic', 'onnx', 'onnxruntime', 'openvino', 'psycopg') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_file_that_is_no_database_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"not a database at all, but somebody's notes" * 100)
    with pytest.raises(StoreUnusable, match="not a database"):
        Catalog.connect(f"sqlite:///{tmp_path / 'catalog.db'}")

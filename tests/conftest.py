"""Fixtures for whoever needs a store: one on SQLite, and catalogs on both databases."""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from model_store.catalog import Catalog
from model_store.store import ModelStore
from tests.postgres import shared_postgres


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty database on a real PostgreSQL that is started once for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    with shared_postgres(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as url:
        yield url


@pytest.fixture(scope="session")
def _migrated_postgres(postgres_url: str) -> str:
    name = _new_name()
    _postgres(postgres_url, f"CREATE DATABASE {name}")
    Catalog.connect(_in_database(postgres_url, name)).close()
    return name


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("migrated") / "catalog.db"
    Catalog.connect(f"sqlite:///{file}").close()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a fresh catalog, its schema made: every test that takes it runs on both databases."""
    if request.param == "sqlite":
        file = tmp_path / "catalog.db"
        shutil.copy(request.getfixturevalue("_migrated_sqlite"), file)
        yield f"sqlite:///{file}"
        return
    template = request.getfixturevalue("_migrated_postgres")
    yield from _new_postgres(request.getfixturevalue("postgres_url"), f"TEMPLATE {template} STRATEGY FILE_COPY")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database that no catalog was ever opened on."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'catalog.db'}"
        return
    yield from _new_postgres(request.getfixturevalue("postgres_url"), "")


@pytest.fixture
def catalog(database_url: str) -> Iterator[Catalog]:
    """A fresh catalog, on each database in turn."""
    opened = Catalog.connect(database_url)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path, _migrated_sqlite: Path) -> Iterator[ModelStore]:
    """A fresh store in `tmp_path/data`, its catalog on SQLite."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(_migrated_sqlite, data / "catalog.db")
    opened = ModelStore.open(data)
    yield opened
    opened.close()


def _new_postgres(url: str, options: str) -> Iterator[str]:
    name = _new_name()
    _postgres(url, f"CREATE DATABASE {name} {options}")
    yield _in_database(url, name)
    _postgres(url, f"DROP DATABASE {name} WITH (FORCE)")


def _new_name() -> str:
    return f"test_{secrets.token_hex(8)}"  # other workers make theirs on the same server


def _postgres(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


def _in_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)

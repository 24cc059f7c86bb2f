"""What opening promises: any catalog becomes the newest one, whoever opens it and however many at once."""

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from model_store import database, migrations
from model_store.catalog import Catalog
from model_store.errors import StoreUnusable
from model_store.tables import metadata
from tests.contracts.test_catalog_processes_contract import run_together
from tests.rows import register


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def test_the_history_is_one_line_and_ends_in_head() -> None:
    revisions = list(_scripts().walk_revisions())
    assert _scripts().get_heads() == [migrations.HEAD]
    assert all(isinstance(revision.down_revision, str | None) for revision in revisions)


def test_the_migrations_make_the_tables_the_code_knows(empty_database_url: str) -> None:
    Catalog.connect(empty_database_url).close()
    opened = database.connect(empty_database_url)
    with opened.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    opened.close()


def test_every_revision_goes_down_and_up_again(empty_database_url: str) -> None:
    Catalog.connect(empty_database_url).close()
    opened = database.connect(empty_database_url)
    for revision in [*(r.down_revision or "base" for r in _scripts().walk_revisions())]:
        migrations.migrate(opened, revision)
    with opened.read() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    migrations.migrate(opened)
    opened.close()
    catalog = Catalog.connect(empty_database_url)
    assert register(catalog)[0].version == "1"
    catalog.close()


def _open_and_register(results: Any, start: Any, number: int, url: str) -> None:
    start.wait(60)
    catalog = Catalog.connect(url)
    results.put(register(catalog, f"model-{number}")[0].version)
    catalog.close()


def test_processes_may_open_a_new_catalog_at_the_same_moment(empty_database_url: str) -> None:
    assert run_together(_open_and_register, 4, empty_database_url) == ["1"] * 4
    catalog = Catalog.connect(empty_database_url)
    assert len(catalog.models()) == 4
    catalog.close()


def test_opening_again_changes_nothing(catalog: Catalog, database_url: str) -> None:
    register(catalog)
    before = catalog.snapshot()
    again = Catalog.connect(database_url)
    assert again.snapshot() == before
    again.close()


def test_a_catalog_of_a_newer_forgeway_is_left_alone(catalog: Catalog, database_url: str) -> None:
    with catalog._database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnusable, match="newer Forgeway"):
        Catalog.connect(database_url)


def test_a_migration_that_fails_leaves_nothing_half_made(empty_database_url: str) -> None:
    opened = database.connect(empty_database_url)
    with opened.write() as connection:
        connection.execute(text("CREATE TABLE version_counters (name TEXT)"))  # stands in the way of the first one
    with pytest.raises(StoreUnusable, match="version_counters"):
        Catalog.connect(empty_database_url)
    with opened.read() as connection:
        assert inspect(connection).get_table_names() == ["version_counters"]
    opened.close()

"""Where a setting comes from, and that mistakes are said."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import Settings, origins, settings_from


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FORGEWAY_{name.upper()}", raising=False)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_from({}).port == 8000
    Path("forgeway.toml").write_text("port = 1\nmax_inflight = 7\ntimeout_s = 3.5\n")
    monkeypatch.setenv("FORGEWAY_PORT", "2")
    monkeypatch.setenv("FORGEWAY_MAX_INFLIGHT", "8")
    settings = settings_from({"port": 3, "max_inflight": None})
    assert (settings.port, settings.max_inflight, settings.timeout_s) == (3, 8, 3.5)


def test_every_value_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("forgeway.toml").write_text("timeout_s = 3.5\n")
    monkeypatch.setenv("FORGEWAY_PORT", "2")
    where = origins(settings_from({"host": "127.0.0.2"}))
    assert (where["host"], where["port"], where["timeout_s"]) == ("flag", "environment", "forgeway.toml")
    assert where["log_level"] == "default"


def test_an_unknown_key_in_the_file_fails() -> None:
    Path("forgeway.toml").write_text("prot = 1\n")
    with pytest.raises(ValidationError, match="prot"):
        settings_from({})


def test_a_value_out_of_range_fails_by_name() -> None:
    with pytest.raises(ValidationError, match="port"):
        settings_from({"port": 70_000})


def test_the_password_of_a_database_is_never_shown() -> None:
    settings = settings_from({"database_url": "postgresql+psycopg://me:secret@host/db"})
    assert settings.masked()["database_url"] == "postgresql+psycopg://me:***@host/db"


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []

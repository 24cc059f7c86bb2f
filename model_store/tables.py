"""The tables of the catalog, as SQLAlchemy Core sees them. `migrations/` makes them; a test holds the two together.

Column names are the field names of the entities. A version and a job are known outside by decimal strings and inside
by integers (`Number`). Jobs and their events outlive the version they worked for: they are its history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)

from model_store.columns import Json, Name, Number, Words
from model_store.entities import (
    Artifact,
    Evidence,
    JobKind,
    JobState,
    Plan,
    Signature,
    Verdict,
    VersionStatus,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "ix": "%(table_name)s_%(column_0_name)s_ix",
        "uq": "%(table_name)s_%(column_0_name)s_uq",
    }
)

changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)
"""One row. Its sequence rises in every transaction that can change routing, and in the order of their commits."""

version_counters = Table(
    "version_counters",
    metadata,
    Column("name", Words, primary_key=True),
    Column("last", Integer, nullable=False),
)
"""Outlives the model, so that a version number is never used twice for one name."""

models = Table(
    "models",
    metadata,
    Column("name", Words, primary_key=True),
    Column("created_at", Double, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("name", Words, ForeignKey("models.name"), primary_key=True),
    Column("version", Number, primary_key=True, autoincrement=False),
    Column("status", Name(VersionStatus), nullable=False),
    Column("reason", Words, nullable=False),
    Column("model", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("signature", Json(Signature), nullable=False),
    Column("samples", String),
    Column("policy", Json(Mapping[str, Any]), nullable=False),
    Column("parameters", BigInteger, nullable=False),
    Column("operators", Json(Mapping[str, int]), nullable=False),
    Column("created_at", Double, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("name", Words, primary_key=True),
    Column("alias", Words, primary_key=True),
    Column("version", Number, nullable=False),
    ForeignKeyConstraint(["name", "version"], ["versions.name", "versions.version"]),
)

variants = Table(
    "variants",
    metadata,
    Column("name", Words, primary_key=True),
    Column("version", Number, primary_key=True, autoincrement=False),
    Column("id", Words, primary_key=True),
    Column("recipe", String, nullable=False),
    Column("target", String, nullable=False),
    Column("techniques", Json(tuple[str, ...]), nullable=False),
    Column("parameters", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("verdict", Name(Verdict), nullable=False),
    Column("reason", Words, nullable=False),
    Column("artifact", Json(Artifact)),
    Column("evidence", Json(Evidence)),
    Column("plan", Json(Plan)),
    Column("created_at", Double, nullable=False),
    ForeignKeyConstraint(["name", "version"], ["versions.name", "versions.version"], ondelete="CASCADE"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=True),
    Column("name", Words, nullable=False),
    Column("version", Number, nullable=False),
    Column("kind", Name(JobKind), nullable=False),
    Column("target", String, nullable=False),
    Column("request", Json(Mapping[str, Any]), nullable=False),
    Column("state", Name(JobState), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("worker", Words),
    Column("error", Words),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("priority", Integer, nullable=False, server_default="5"),
    # Only open jobs are ever searched for work; ended ones pile up and must not slow the search.
    Index(
        "jobs_open_ix",
        "id",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index("jobs_name_ix", "name", "version"),
    sqlite_autoincrement=True,
)

job_events = Table(
    "job_events",
    metadata,
    Column("job", Number, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("step", String, nullable=False),
    Column("status", String, nullable=False),
    Column("text", Words, nullable=False),
    Column("data", Json(Mapping[str, Any]), nullable=False),
    ForeignKeyConstraint(["job"], ["jobs.id"]),
)

steps = Table(
    "steps",
    metadata,
    Column("key", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("result", Json(dict[str, Any]), nullable=False),
    Column("blobs", Json(tuple[str, ...]), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Words, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("scopes", Json(tuple[str, ...]), nullable=False),
    Column("note", Words, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
)

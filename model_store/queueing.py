"""The life of job rows inside somebody else's transaction: they are added, they end, and a version's status follows.

Every function takes the open transaction of its caller, so that a version and its jobs never disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from model_store.entities import REFERENCE, Job, JobKind, JobState, ModelVersion, VersionStatus
from model_store.policy import DEFAULT_PRIORITY
from model_store.tables import jobs, variants, versions

OPEN = (JobState.QUEUED, JobState.RUNNING)

REFERENCE_TARGET = "ort-cpu"
"""What runs the reference variant, always: ONNX Runtime on CPU, fp32 (the design's definition of the word)."""


def add(
    connection: Connection,
    version: ModelVersion,
    targets: Sequence[str],
    *,
    request: Mapping[str, Any],
    reference: bool,
    now: float,
) -> tuple[Job, ...]:
    """Queue one compile job per target, and before them the reference job when asked."""
    wanted = [(JobKind.REFERENCE, REFERENCE_TARGET)] if reference else []
    wanted += [(JobKind.COMPILE, target) for target in dict.fromkeys(targets)]
    priority = dict(request.get("policy", version.policy)).get("priority", DEFAULT_PRIORITY)
    added = []
    for kind, target in wanted:
        row = connection.execute(
            insert(jobs)
            .values(
                name=version.name,
                version=version.version,
                kind=kind,
                target=target,
                request=request,
                state=JobState.QUEUED,
                attempt=0,
                token=0,
                lease_until=0.0,
                created_at=now,
                priority=priority,
            )
            .returning(*jobs.c)
        ).one()
        added.append(Job(**row._mapping))
    return tuple(added)


def end(connection: Connection, job: Job, state: JobState, error: str | None, now: float) -> None:
    """End a job and let its version follow: a reference that did not succeed fails the version and cancels the rest;
    the last job to end makes an answering version ready."""
    _close(connection, [jobs.c.id == job.id], state, error, now)
    if job.kind is JobKind.REFERENCE and state is not JobState.SUCCEEDED:
        reason = error or f"the reference job was {state}"
        _set_status(connection, job, VersionStatus.FAILED, reason)
        cancel_open(connection, job.name, job.version, f"there is no reference to compare with: {reason}", now)
    elif reference_published(connection, job.name, job.version):
        still_open = connection.execute(select(func.count()).where(*_open_of(job.name, job.version))).scalar_one()
        _set_status(connection, job, VersionStatus.COMPILING if still_open else VersionStatus.READY, "")


def reopen(connection: Connection, version: ModelVersion) -> None:
    """A version with new jobs is on its way again: it compiles, or waits for its reference."""
    published = reference_published(connection, version.name, version.version)
    _set_status(connection, version, VersionStatus.COMPILING if published else VersionStatus.REGISTERED, "")


def cancel_open(connection: Connection, name: str, version: str | None, why: str, now: float) -> None:
    """Cancel every open job of the version (None: of the model); their workers learn it at the next heartbeat."""
    _close(connection, _open_of(name, version), JobState.CANCELLED, why, now)


def reference_published(connection: Connection, name: str, version: str) -> bool:
    where = (variants.c.name == name, variants.c.version == version, variants.c.id == REFERENCE)
    return connection.execute(select(variants.c.id).where(*where)).first() is not None


def _close(connection: Connection, where: Sequence[Any], state: JobState, error: str | None, now: float) -> None:
    # The token rises so that whoever held the job is fenced from here on.
    values: dict[str, Any] = {"state": state, "finished_at": now, "lease_until": 0.0, "token": jobs.c.token + 1}
    if error is not None or state is JobState.SUCCEEDED:  # a success forgets the attempts before it
        values["error"] = error
    connection.execute(update(jobs).where(*where).values(values))


def _open_of(name: str, version: str | None) -> list[Any]:
    where = [jobs.c.name == name, jobs.c.state.in_(OPEN)]
    return where if version is None else [*where, jobs.c.version == version]


def _set_status(connection: Connection, of: Job | ModelVersion, status: VersionStatus, reason: str) -> None:
    where = (versions.c.name == of.name, versions.c.version == of.version)
    connection.execute(update(versions).where(*where).values(status=status, reason=reason))

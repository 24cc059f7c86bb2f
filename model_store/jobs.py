"""Jobs as leased rows: whoever claims one holds it until its lease ends, and only the newest holder can write.

The fence: every claim raises the job's `token`, and every write of a worker demands its own token, the state
`running` and a lease that has not ended, by the database's clock. A worker that stalled past its lease finds its
writes refused (LeaseLost) instead of overwriting those of its successor. Workers renew at a third of the lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, case, exists, func, insert, or_, select, update

from model_store import queueing
from model_store.columns import is_number, moment
from model_store.database import Database
from model_store.entities import REFERENCE, Job, JobEvent, JobKind, JobState, Variant, Verdict
from model_store.errors import Conflict, LeaseLost, NotFound
from model_store.tables import job_events, jobs, variants
from model_store.versions import find_version

MAX_ATTEMPTS = 3
"""A job whose workers died this often is at fault itself; claiming it on would crash the fleet one by one."""


class Jobs:
    """Work to be done, in order: reference jobs first, then by priority, then the oldest."""

    _database: Database

    def enqueue(self, name: str, version: str, targets: Sequence[str], request: Mapping[str, Any]) -> tuple[Job, ...]:
        """Compile again for `targets`; where the reference never succeeded, that is tried again first.

        Raises NotFound; Conflict when a target is being compiled already.
        """
        with self._database.change() as connection:
            found = find_version(connection, name, version)
            where = (jobs.c.name == name, jobs.c.version == version, jobs.c.finished_at.is_(None))
            for row in connection.execute(select(jobs.c.id, jobs.c.target, jobs.c.kind).where(*where)):
                if row.kind is JobKind.COMPILE and row.target in targets:
                    raise Conflict(f"job {row.id} compiles {name}/{version} for {row.target} already; cancel it first")
            open_reference = select(jobs.c.id).where(*where, jobs.c.kind == JobKind.REFERENCE)
            reference = not (
                queueing.reference_published(connection, name, version) or connection.execute(open_reference).first()
            )
            now = self._database.now(connection)
            added = queueing.add(connection, found, targets, request=request, reference=reference, now=now)
            queueing.reopen(connection, found)
        return added

    def jobs(self, name: str | None = None, state: JobState | None = None, limit: int = 200) -> tuple[Job, ...]:
        """Newest first."""
        statement = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
        if name is not None:
            statement = statement.where(jobs.c.name == name)
        if state is not None:
            statement = statement.where(jobs.c.state == state)
        with self._database.read() as connection:
            return tuple(Job(**row._mapping) for row in connection.execute(statement))

    def job(self, id: str) -> Job:  # noqa: A002 - the entity's own word
        """Raises NotFound."""
        with self._database.read() as connection:
            return _find(connection, id)

    def claim(self, worker: str, kinds: Sequence[JobKind], lease_s: float) -> Job | None:
        """Take the next job of one of `kinds` for `lease_s` seconds; None when there is nothing to do.

        A compile job waits until the reference of its version is published. A job whose holder let the lease end is
        taken over, and fails for good when it had MAX_ATTEMPTS holders.
        """
        while (waiting := self._next(kinds)) is not None:
            if waiting.attempt < MAX_ATTEMPTS:
                return self._take(worker, kinds, lease_s)
            self._give_up(waiting.id)
        return None

    def heartbeat(self, job: Job, lease_s: float) -> bool:
        """Renew the lease. False: the job is another's now, ended or cancelled; stop working on it."""
        renewed = update(jobs).where(*_held(job)).values(lease_until=moment() + lease_s)
        with self._database.write() as connection:
            return connection.execute(renewed).rowcount == 1

    def publish(self, job: Job, variant: Variant) -> None:
        """Make a variant visible together with its evidence; one of the same id is replaced.

        Raises LeaseLost; ValueError for a variant that is not this job's, or that would serve without proof.
        """
        if (variant.name, variant.version) != (job.name, job.version):
            raise ValueError(
                f"job {job.id} is of {job.name}/{job.version}, the variant of {variant.name}/{variant.version}"
            )
        if variant.verdict is Verdict.SERVING and variant.artifact is None:
            raise ValueError(f"variant {variant.id} cannot serve without an artifact")
        if variant.verdict is Verdict.SERVING and variant.evidence is None and variant.id != REFERENCE:
            raise ValueError(f"variant {variant.id} cannot serve without evidence")
        row = self._database.insert(variants).values(
            {column.name: getattr(variant, column.name) for column in variants.c}
        )
        changed = {column.name: row.excluded[column.name] for column in variants.c if not column.primary_key}
        with self._database.change() as connection:
            _hold(connection, job)
            connection.execute(row.on_conflict_do_update(index_elements=["name", "version", "id"], set_=changed))

    def finish(self, job: Job, state: JobState, error: str | None = None) -> None:
        """End the job. A reference that did not succeed fails its version; the last job to end makes it ready.

        Raises LeaseLost; Conflict when a reference job claims success and published nothing.
        """
        if not state.ended:
            raise ValueError(f"a job does not finish as {state}; release() hands it back")
        with self._database.change() as connection:
            _hold(connection, job)
            proven = job.kind is JobKind.COMPILE or queueing.reference_published(connection, job.name, job.version)
            if state is JobState.SUCCEEDED and not proven:
                raise Conflict(f"job {job.id} cannot succeed: its variant {REFERENCE!r} was not published")
            queueing.end(connection, job, state, error, self._database.now(connection))

    def release(self, job: Job, error: str | None = None) -> None:
        """Hand the job back before its lease ends. Without an error (the worker is stopping) the attempt does not
        count; with one it does, and the last attempt fails the job. Raises LeaseLost."""
        if error is not None and job.attempt >= MAX_ATTEMPTS:
            self.finish(job, JobState.FAILED, error)
            return
        again = {"state": JobState.QUEUED, "lease_until": 0.0, "worker": None}
        again |= {"attempt": job.attempt - 1} if error is None else {"error": error}
        with self._database.write() as connection:
            _hold(connection, job)
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(again))

    def cancel(self, job_id: str) -> Job:
        """Cancel an open job; an ended one is left as it is. Returns the job as it is then. Raises NotFound."""
        with self._database.change() as connection:
            job = _find(connection, job_id, lock=True)
            if not job.state.ended:
                queueing.end(
                    connection, job, JobState.CANCELLED, "cancelled on request", self._database.now(connection)
                )
            return _find(connection, job_id)

    def append_event(self, job: Job, step: str, status: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        """Add a line to the job's log. Raises LeaseLost: the log is the holder's."""
        with self._database.write() as connection:
            _hold(connection, job)
            _log(connection, job.id, step, status, text, data or {})

    def events(self, job_id: str, after: int = 0) -> tuple[JobEvent, ...]:
        """Lines of the log with `seq` greater than `after`, oldest first. Raises NotFound."""
        with self._database.read() as connection:
            _find(connection, job_id)
            rows = connection.execute(
                select(job_events)
                .where(job_events.c.job == job_id, job_events.c.seq > after)
                .order_by(job_events.c.seq)
            )
            return tuple(JobEvent(**row._mapping) for row in rows)

    def _next(self, kinds: Sequence[JobKind]) -> Row[Any] | None:
        """A look without a lock, so that idle workers that poll do not stand in the way of writers."""
        with self._database.read() as connection:
            return connection.execute(_claimable(kinds)).first()

    def _take(self, worker: str, kinds: Sequence[JobKind], lease_s: float) -> Job | None:
        with self._database.write() as connection:
            # PostgreSQL: rows that another claim holds at this moment are passed over instead of waited for.
            free = _claimable(kinds).where(jobs.c.attempt < MAX_ATTEMPTS).with_for_update(of=jobs, skip_locked=True)
            found = connection.execute(free).first()
            if found is None:
                return None
            values: dict[str, Any] = {
                "state": JobState.RUNNING,
                "attempt": jobs.c.attempt + 1,
                "token": jobs.c.token + 1,
                "lease_until": moment() + lease_s,
                "worker": worker,
                "started_at": func.coalesce(jobs.c.started_at, moment()),
            }
            if found.state is JobState.RUNNING:
                values["error"] = _lost(found)
                _log(connection, found.id, "claim", "log", f"{_lost(found)}; {worker} takes over", {})
            taken = update(jobs).where(jobs.c.id == found.id).values(values).returning(*jobs.c)
            return Job(**connection.execute(taken).one()._mapping)

    def _give_up(self, job_id: str) -> None:
        with self._database.change() as connection:
            job = _find(connection, job_id, lock=True)
            now = self._database.now(connection)
            if not job.state.ended and job.lease_until <= now and job.attempt >= MAX_ATTEMPTS:
                before = f" (before: {job.error})" if job.error else ""
                error = f"given up after {job.attempt} attempts: {_lost(job)}{before}"
                queueing.end(connection, job, JobState.FAILED, error, now)


def _claimable(kinds: Sequence[JobKind]) -> Any:
    reference = exists().where(
        variants.c.name == jobs.c.name, variants.c.version == jobs.c.version, variants.c.id == REFERENCE
    )
    return (
        select(jobs.c.id, jobs.c.state, jobs.c.attempt, jobs.c.worker)
        .where(
            jobs.c.finished_at.is_(None),
            jobs.c.kind.in_(kinds),
            or_(jobs.c.state == JobState.QUEUED, jobs.c.lease_until <= moment()),
            or_(jobs.c.kind == JobKind.REFERENCE, reference),
        )
        .order_by(case((jobs.c.kind == JobKind.REFERENCE, 0), else_=1), jobs.c.priority, jobs.c.id)
        .limit(1)
    )


def _held(job: Job) -> tuple[Any, ...]:
    """The fence: this very claim of the job, running, its lease not ended."""
    return (
        jobs.c.id == job.id,
        jobs.c.token == job.token,
        jobs.c.state == JobState.RUNNING,
        jobs.c.lease_until > moment(),
    )


def _hold(connection: Connection, job: Job) -> None:
    """Demand the fence and keep it shut until the transaction ends (SQLite: its writer is alone anyway)."""
    if connection.execute(select(jobs.c.id).where(*_held(job)).with_for_update()).first() is None:
        raise LeaseLost(f"job {job.id} is not held by claim {job.token} of {job.worker!r} any more")


def _find(connection: Connection, job_id: str, *, lock: bool = False) -> Job:
    statement = select(jobs).where(jobs.c.id == job_id)
    row = connection.execute(statement.with_for_update() if lock else statement).first() if is_number(job_id) else None
    if row is None:
        raise NotFound(f"no job {job_id!r}")
    return Job(**row._mapping)


def _lost(job: Any) -> str:
    return f"worker {job.worker} stopped answering in attempt {job.attempt}"


def _log(connection: Connection, job_id: str, step: str, status: str, text: str, data: Mapping[str, Any]) -> None:
    newest = select(func.coalesce(func.max(job_events.c.seq), 0) + 1).where(job_events.c.job == job_id)
    connection.execute(
        insert(job_events).values(
            job=job_id, seq=newest.scalar_subquery(), at=moment(), step=step, status=status, text=text, data=data
        )
    )

"""`/v1/jobs`: what is being compiled, its live log, and the way to stop it.

The log is sent as server-sent events: every event's id is its number in the log, so a client that comes back with
Last-Event-ID misses nothing and sees nothing twice. Silence is broken by comments. The stream ends with an event
`end` that holds the job, once the job has ended; it also ends, without one, when the gateway drains.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query
from starlette.responses import Response, StreamingResponse

from gateway.errors import BadRequest
from gateway.routes.views import event_view, job_view, reply
from gateway.state import Gateway, Here
from model_store.entities import JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_POLL_S = 0.2
_HEARTBEAT_S = 10.0
_MOST_DIGITS = 18
"""Of the number of an event: catalogs hold no larger ones."""


@router.get("")
async def list_jobs(
    gateway: Here,
    name: Annotated[str | None, Query(description="only of this model")] = None,
    version: Annotated[str | None, Query(description="only of this version")] = None,
    state: Annotated[JobState | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Response:
    """Compile jobs, newest first."""
    jobs = await asyncio.to_thread(gateway.store.catalog.jobs, name, state, limit)
    return reply({"jobs": [job_view(job) for job in jobs if version is None or job.version == version]})


@router.get("/{job_id}")
async def get_job(job_id: str, gateway: Here) -> Response:
    """One job."""
    return reply(job_view(await asyncio.to_thread(gateway.store.catalog.job, job_id)))


@router.delete("/{job_id}")
async def cancel_job(job_id: str, gateway: Here) -> Response:
    """Cancel a job; one that has ended stays as it is."""
    return reply(job_view(await asyncio.to_thread(gateway.store.catalog.cancel, job_id)))


@router.get("/{job_id}/events", response_class=StreamingResponse)
async def job_events(
    job_id: str,
    gateway: Here,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[
        int, Query(ge=0, lt=10**_MOST_DIGITS, description="begin after this event (Last-Event-ID wins)")
    ] = 0,
    follow: Annotated[bool, Query(description="false: only what there is now")] = True,
) -> Response:
    """The job's log as server-sent events."""
    if last_event_id:
        if not last_event_id.isdecimal() or len(last_event_id) > _MOST_DIGITS:
            raise BadRequest(f"Last-Event-ID must be the number of an event, not {last_event_id[:40]!r}")
        after = int(last_event_id)
    await asyncio.to_thread(gateway.store.catalog.job, job_id)  # 404 before the stream begins
    return StreamingResponse(
        _stream(gateway, job_id, after, follow),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _stream(gateway: Gateway, job_id: str, after: int, follow: bool) -> AsyncIterator[bytes]:
    catalog = gateway.store.catalog
    spoken = time.monotonic()
    yield b"retry: 1000\n\n"
    while True:
        # The state first: what is logged before the job ends is then never missed.
        job = await asyncio.to_thread(catalog.job, job_id)
        for event in await asyncio.to_thread(catalog.events, job_id, after):
            after = event.seq
            yield b"id: %d\ndata: %b\n\n" % (after, msgspec.json.encode(event_view(event)))
            spoken = time.monotonic()
        if job.state.ended:
            yield b"event: end\ndata: %b\n\n" % msgspec.json.encode(job_view(job))
            return
        if not follow or gateway.draining.is_set():
            return
        if time.monotonic() - spoken > _HEARTBEAT_S:
            yield b": still there\n\n"
            spoken = time.monotonic()
        await asyncio.sleep(_POLL_S)

"""Accounts of what the workers do, for the metrics: jobs by state, time and failures of steps, bytes kept.

Workers are other processes, perhaps on other machines, and one gateway process owns the metrics: so what they did is
read from the catalog, where their logs are, once a second while there is something to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter

from gateway.logs import event
from gateway.metrics import Metrics
from model_store.entities import Job, JobState
from model_store.errors import BlobMissing, NotFound
from model_store.store import ModelStore

_EVERY_S = 1.0
_WEIGH_EVERY_S = 5.0
_MOST_JOBS = 1000


class Accounts:
    """`keep` runs as long as the gateway does."""

    def __init__(self, store: ModelStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._began = time.time()
        self._sequence = -1
        self._newest = 0
        self._open: dict[str, int] = {}
        """Jobs that had not ended when last seen -> the last event of theirs that was counted."""
        self._weighed, self._unweighed = -_WEIGH_EVERY_S, True

    async def keep(self) -> None:
        trouble = False
        while True:
            try:
                await asyncio.to_thread(self.look)
                trouble = False
            except Exception as exc:  # the database is away: the next look makes up for it
                if not trouble:
                    event(logging.WARNING, "compile jobs cannot be counted", reason=type(exc).__name__)
                trouble = True
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Read what happened since the last look. Blocks: call it in a thread."""
        sequence = self._store.catalog.sequence()
        if sequence != self._sequence or self._open:
            self._unweighed = True
            self._read_jobs()
            self._sequence = sequence
        if self._unweighed and time.monotonic() - self._weighed > _WEIGH_EVERY_S:
            self._weigh()

    def _read_jobs(self) -> None:
        jobs = self._store.catalog.jobs(limit=_MOST_JOBS)
        counts = Counter(job.state.value for job in jobs)
        self._metrics.set_jobs({state.value: counts[state.value] for state in JobState})
        if self._sequence < 0:  # what had ended before this gateway began is not its account
            self._newest = max((int(job.id) for job in jobs if job.state.ended), default=0)
        for job in jobs:
            if not job.state.ended or job.id in self._open or int(job.id) > self._newest:
                self._count(job)
        self._newest = max((int(job.id) for job in jobs), default=self._newest)

    def _count(self, job: Job) -> None:
        last = self._open.get(job.id, 0)
        with contextlib.suppress(NotFound):
            for line in self._store.catalog.events(job.id, last):
                last = line.seq
                seconds = line.data.get("seconds")
                if line.at < self._began:
                    continue  # counted by whoever ran then
                if line.status == "done" and isinstance(seconds, int | float):
                    self._metrics.compile_step(job.target, line.step, float(seconds))
                elif line.status == "failed":
                    self._metrics.compile_failed(job.target, str(line.data.get("cause", "error")))
        if job.state.ended:
            self._open.pop(job.id, None)
        else:
            self._open[job.id] = last

    def _weigh(self) -> None:
        self._weighed, self._unweighed = time.monotonic(), False
        total = 0
        for digest in self._store.blobs.digests():
            with contextlib.suppress(OSError, BlobMissing):
                total += sum(filter(None, self._store.blobs.footprint(digest)))
        self._metrics.set_blob_bytes(total)

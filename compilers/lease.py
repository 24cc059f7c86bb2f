"""Holding a job: a thread renews its lease at a third of its length, until the work is done or the job is lost."""

from __future__ import annotations

import logging
import threading
import time

from compilers.patience import AWAY
from model_store.catalog import Catalog
from model_store.entities import Job

log = logging.getLogger(__name__)


class Lease:
    """`lost` turns true for good when the job is cancelled, another's, or could not be renewed in time."""

    def __init__(self, catalog: Catalog, job: Job, lease_s: float) -> None:
        self.lost = False
        self._catalog = catalog
        self._job = job
        self._lease_s = lease_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{job.id}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _renew(self) -> None:
        # Cancellation travels by the same road, so a long lease is asked about more often than it needs.
        every, renewed = min(self._lease_s / 3, 1.0), time.monotonic()
        while not self._done.wait(every):
            try:
                if not self._catalog.heartbeat(self._job, self._lease_s):
                    self.lost = True
                    return
                renewed = time.monotonic()
            except AWAY as exc:
                log.warning("job %s: heartbeat missed: %s", self._job.id, exc.orig)
                if time.monotonic() - renewed > self._lease_s:
                    self.lost = True
                    return

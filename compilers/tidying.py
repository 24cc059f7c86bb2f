"""Packing what is out of use, while nobody compiles: it would cost the measurements their quiet."""

from __future__ import annotations

import logging
import os
import threading

from compilers.patience import AWAY
from model_store.cold import pack_cold
from model_store.entities import JobState
from model_store.store import ModelStore

EVERY_S = 600.0
LOWEST_PRIORITY = 19

log = logging.getLogger("forgeway.worker")


def keep_tidy(store: ModelStore, stop: threading.Event, every_s: float = EVERY_S) -> None:
    """Until `stop` is set, at the lowest priority of this thread alone."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
    while not stop.wait(every_s):
        try:
            saved = pack_cold(store, stopped=lambda: stop.is_set() or bool(store.catalog.jobs(state=JobState.RUNNING)))
        except AWAY as exc:
            log.warning("nothing packed, the catalog does not answer: %s", exc.orig)
            continue
        except OSError as exc:
            log.warning("nothing packed: %s", exc)
            continue
        if saved.blobs or saved.dropped:
            log.info(
                "packed %d blobs out of use: %d bytes were %d; %d copies dropped",
                saved.blobs, saved.after, saved.before, saved.dropped,
            )  # fmt: skip

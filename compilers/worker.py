"""The compile worker: claims jobs, holds their leases, publishes what came of them.

Two lanes, so that a new model answers at once while others compile for minutes: one publishes references (normal
priority), one compiles (lowest priority). A worker may be killed at any instruction: whatever it held is claimed again
when the lease ends, finished steps are not repeated, and nothing of it is visible before it is whole.

    python -m compilers.worker --data DIR [--database-url URL] [--beside-gateway]
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compilers import pipeline, words
from compilers.isolate import Isolation, StepFailed, Stopped
from compilers.lease import Lease
from compilers.patience import AWAY, patiently
from compilers.pipeline import Rejected
from compilers.recipe import candidates, idle_techniques
from compilers.search import ranking, search
from compilers.tidying import keep_tidy
from compilers.timing import planning
from compilers.traffic import Traffic
from model_store.entities import Job, JobKind, JobState, Variant, Verdict
from model_store.errors import LeaseLost, NotFound
from model_store.policy import Policy
from model_store.store import ModelStore

log = logging.getLogger(__name__)

POLL_S = 0.1
ASK_ANYWAY_S = 0.5
LEASE_S = 15.0
LOWEST_PRIORITY = 19
PROBE_SECONDS = 300.0
"""A reference that takes longer than this to open and run a few times is no model to serve."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Jobs of one kind, one at a time, their children at one priority."""

    kind: JobKind
    work: Callable[[ModelStore, Job, Isolation], None]
    nice: int


def run_worker(
    store: ModelStore,
    stop: threading.Event,
    *,
    lease_s: float = LEASE_S,
    poll_s: float = POLL_S,
    nice: int = LOWEST_PRIORITY,
    traffic: Traffic | None = None,
) -> None:
    """Work until `stop` is set. Jobs in hand are then given back at once, their children ended.

    `nice`: of the children that compile. `traffic`: whether requests are answered beside it, where somebody says. An
    error that no lane should meet stops both and leaves here.
    """
    name = f"{socket.gethostname()}:{os.getpid()}"
    errors: list[Exception] = []
    sweep(store.work)

    def follow(lane: Lane) -> None:
        try:
            _follow(store, stop, lane, name, traffic or Traffic(), lease_s, poll_s)
        except Exception as exc:
            errors.append(exc)
            stop.set()

    lanes = (
        Lane(JobKind.REFERENCE, _publish_reference, nice=0),
        Lane(JobKind.COMPILE, _compile_target, nice=nice),
    )
    threads = [threading.Thread(target=follow, args=(lane,), name=lane.kind.value) for lane in lanes]
    threads.append(threading.Thread(target=keep_tidy, args=(store, stop), name="tidying"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def sweep(work: Path) -> None:
    """Remove the folders of workers that died on this machine (called before this one has any)."""
    for folder in work.glob(f"{_folder_prefix('*')}*"):
        owner = folder.name.removesuffix(folder.name.rpartition("-")[2]).split("-")[-2]
        if owner == str(os.getpid()) or not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _folder_prefix(pid: int | str) -> str:
    return f"job-{socket.gethostname()}-{pid}-"


def _follow(
    store: ModelStore, stop: threading.Event, lane: Lane, worker: str, traffic: Traffic, lease_s: float, poll_s: float
) -> None:
    """Claim and work. Between claims only the catalog's sequence is read, so that idle lanes cost next to nothing."""
    seen, asked, pause = -1, 0.0, poll_s
    while not stop.wait(pause):
        try:
            pause, newest, now = poll_s, store.catalog.sequence(), time.monotonic()
            # A lease that ends changes no row: so now and then the question is asked without a cause.
            if newest == seen and now - asked < ASK_ANYWAY_S:
                continue
            seen, asked = newest, now
            job = store.catalog.claim(worker, [lane.kind], lease_s)
            if job is not None:
                seen, pause = -1, 0.0  # there may be more
                _work(store, job, lane, stop, traffic, lease_s)
        except AWAY as exc:
            seen, pause = -1, min(2 * max(pause, poll_s), 5.0)
            log.warning("%s lane: the catalog does not answer, trying again in %.1f s: %s", lane.kind, pause, exc.orig)


def _work(store: ModelStore, job: Job, lane: Lane, stop: threading.Event, traffic: Traffic, lease_s: float) -> None:
    """Hold the job while it is worked on, then end it or give it back."""
    log.info("job %s: %s %s/%s for %s, attempt %d", job.id, job.kind, job.name, job.version, job.target, job.attempt)
    with (
        Lease(store.catalog, job, lease_s) as lease,
        tempfile.TemporaryDirectory(prefix=_folder_prefix(os.getpid()), dir=store.work) as workdir,
    ):
        isolation = Isolation(
            store, job, Path(workdir), nice=lane.nice, stopped=lambda: stop.is_set() or lease.lost, traffic=traffic
        )
        try:
            lane.work(store, job, isolation)
            patiently(lambda: store.catalog.finish(job, JobState.SUCCEEDED))
        except StepFailed as exc:
            reason = str(exc)
            patiently(lambda: store.catalog.finish(job, JobState.FAILED, reason))
        except (LeaseLost, NotFound):
            log.info("job %s is not ours any more", job.id)
        except Stopped:
            if lease.lost:
                log.info("job %s was cancelled, or is another's now", job.id)
            else:
                _give_back(store, job)
        except AWAY:
            raise  # the lease ends by itself
        except Exception as exc:
            log.exception("job %s failed in a way it should not", job.id)
            _give_back(store, job, error=f"{type(exc).__name__}: {exc}")


def _give_back(store: ModelStore, job: Job, error: str | None = None) -> None:
    try:
        patiently(lambda: store.catalog.release(job, error))
    except LeaseLost:
        log.info("job %s is not ours any more", job.id)


def _publish_reference(store: ModelStore, job: Job, isolation: Isolation) -> None:
    isolation.deadline = isolation.clock() + PROBE_SECONDS
    version = patiently(lambda: store.catalog.version(job.name, job.version))
    _publish(store, isolation, pipeline.publish_reference(version, isolation))


def _compile_target(store: ModelStore, job: Job, isolation: Isolation) -> None:
    version = patiently(lambda: store.catalog.version(job.name, job.version))
    policy = Policy.model_validate(job.request.get("policy", version.policy))
    isolation.deadline = isolation.clock() + policy.budget_seconds
    subject = pipeline.subject_of(version, policy, job.target, isolation)
    for reference in planning.reference_planned(subject, isolation):
        _publish(store, isolation, reference)
    asked: Sequence[str] | None = job.request.get("recipes")
    offered = candidates(job.target, version.operators, policy)
    recipes = [recipe for recipe in offered if asked is None or recipe.name in asked]
    for word in idle_techniques(job.target, recipes, policy):
        told = {"technique": word, "target": job.target}
        isolation.tell("techniques", "log", f"{word}: nothing to try for this model on {job.target}", told)
    tried = []
    for recipe in recipes:
        if isolation.out_of_time:
            outcome: Variant | Rejected = Rejected(Verdict.REJECTED, words.not_tried(policy.budget_seconds))
        else:
            outcome = pipeline.compile_variant(subject, recipe, isolation)
        if isinstance(outcome, Rejected):
            outcome = pipeline.rejected_variant(subject, recipe, outcome)
        _publish(store, isolation, outcome)
        tried.append((recipe, outcome))
    for found in search.improve(subject, tried, isolation):
        _publish(store, isolation, found)
    for planned in planning.winners_planned(subject, isolation):
        _publish(store, isolation, planned)
    for described in ranking.ranked(subject, recipes, isolation):
        _publish(store, isolation, described)


def _publish(store: ModelStore, isolation: Isolation, variant: Variant) -> None:
    patiently(lambda: store.catalog.publish(isolation.job, variant))
    told = {"subject": variant.id, "verdict": variant.verdict.value}
    isolation.tell("publish", "done", f"{variant.id}: {variant.verdict}: {variant.reason}", told)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="forgeway worker", description="Compile models of a store until told to stop."
    )
    parser.add_argument("--data", type=Path, required=True, help="the gateway's data folder")
    parser.add_argument(
        "--database-url",
        default=os.environ.get("FORGEWAY_DATABASE_URL"),  # from who starts it, since everybody may read a command line
        help="the catalog, where it is not in the data folder",
    )
    parser.add_argument("--beside-gateway", action="store_true", help="standard input says whether it is serving")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    traffic = Traffic()
    if options.beside_gateway:
        traffic.listen(sys.stdin.fileno())
    store = ModelStore.open(options.data, options.database_url)
    try:
        run_worker(store, stop, traffic=traffic)
    finally:
        store.close()


if __name__ == "__main__":
    main()

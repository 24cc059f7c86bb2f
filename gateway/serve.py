"""The request walk: resolve, check, admit, queue, answer. Every protocol ends here; no protocol is known here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.admission import Admission
from gateway.batching.batch import Answer
from gateway.batching.batcher import Batcher
from gateway.counts import Cells
from gateway.errors import (
    ClientGone,
    DeadlineExceeded,
    Draining,
    GatewayError,
    NotFound,
    Overloaded,
    status_of,
)
from gateway.metrics import Metrics
from gateway.routing.forecast import Forecast
from gateway.routing.health import Health
from gateway.routing.ranking import VersionRoute
from gateway.routing.router import RouteTable
from gateway.running.runner import Connect
from gateway.running.runner_process import run_child
from gateway.running.runners import Runners
from gateway.settings import Settings
from gateway.shared_memory import Regions
from gateway.statistics import Statistics
from gateway.tensors import Checked, Tensor, wrong

REFERENCE_TARGET = "ort-cpu"
_BYTES_IN_FLIGHT_SLOTS = 4
"""Requests in flight may hold as many bytes as this many slots: what is queued and cannot be in a slot yet."""


class Call(msgspec.Struct, gc=False):
    """One prediction as any protocol hands it over. Times are monotonic nanoseconds."""

    route: VersionRoute
    inputs: Sequence[tuple[str, Tensor]]
    id: str | None = ""
    """The client's; empty when it gave none, None where requests have none (V1)."""
    timeout_s: float | None = None
    """Counted from `decoded_ns`: how long a body takes to arrive is the server's business."""
    pin: str | None = None
    received_ns: int = 0
    decoded_ns: int = 0
    gone: Callable[[], Awaitable[Any]] | None = None
    """Resolves when the client leaves."""
    priority: int = 0
    """1 is the highest; 0: the default of the queue (Triton's schedule policy)."""
    checked: Checked | None = None
    """The inputs, when it is known already that they suit the model; `inputs` is not looked at then."""


class Result(msgspec.Struct, frozen=True, gc=False):
    route: VersionRoute
    answer: Answer
    rows: int


class Serving:
    """What answers requests: the route table and everything behind it. The follower replaces the table."""

    def __init__(
        self,
        settings: Settings,
        cells: Cells | None = None,
        health: Health | None = None,
        connect: Connect = run_child,
    ) -> None:
        """`cells`, `health`, `connect`: where counts are kept, who is told of deaths and how runners are come by, when
        this is one of several gateway processes (gateway/fronts)."""
        self.settings = settings
        self.statistics = Statistics(lambda: self.table, cells)
        self.metrics = Metrics(self.statistics)
        self.health = health or Health()
        self.regions = Regions(settings.shared_memory, most_bytes=settings.slot_bytes)
        self.runners = Runners(
            settings.slot_bytes,
            settings.load_timeout_s * settings.gateways,  # one may wait for what each of the others has it open
            self.health,
            self.metrics.runner_died,
            self.statistics,
            connect,
            settings.timeout_s if settings.gateways > 1 else 0.0,
        )
        self.admission = Admission(settings.max_inflight, _BYTES_IN_FLIGHT_SLOTS * settings.slot_bytes)
        self.table = RouteTable(health=self.health)
        self.batchers: Mapping[tuple[str, str], Batcher] = {}
        self.pin: Callable[[VersionRoute, str], Awaitable[None] | None] | None = None
        """Keeps a variant open; what to wait for while it is not, else None. Set by the follower."""
        self.starting = True
        """Until the models that were there at the start can answer."""
        self.trouble = ""
        """Why the catalog cannot be followed right now; empty when it can."""
        self.metrics.watch(self)

    @property
    def draining(self) -> bool:
        return self.admission.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self.admission.draining = value

    def ready(self) -> tuple[bool, str]:
        """Whether requests should be sent here, and why not."""
        if self.draining:
            return False, "the server is shutting down"
        if self.starting:
            return False, self.trouble or "the models are being opened"
        troubles = [facts["trouble"] for facts in self.runners.state().values() if facts["trouble"]]
        return (False, "; ".join(troubles)) if troubles else (True, "")

    def deadline_s(self, asked: float | None) -> float:
        """Seconds a request may take: what it asks for, within the limit."""
        return self.settings.timeout_s if asked is None else min(asked, self.settings.max_timeout_s)

    def forecast_of(self, route: VersionRoute) -> Forecast | None:
        """What is expected of a version's variants, as its traffic shows."""
        batcher = self.batchers.get((route.name, route.version))
        return None if batcher is None else batcher.forecast

    def swap(self, table: RouteTable, batchers: Mapping[tuple[str, str], Batcher]) -> None:
        """Replace all of routing at once. Batches already on their way end where they are."""
        for name, model in table.models.items():
            for version, route in model.versions.items():
                batchers[name, version].route = route
        self.table, self.batchers = table, batchers

    async def __aenter__(self) -> Serving:
        """Start the runner of the reference: every model will need it."""
        await self.runners.start((REFERENCE_TARGET,))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.runners.close()
        for batcher in self.batchers.values():  # also what the end of a runner put back
            batcher.fail_all(Draining())


async def infer(serving: Serving, call: Call) -> Result:
    """Answer one request. Raises GatewayError of every kind; nothing else on purpose."""
    route = call.route
    batcher = serving.batchers.get((route.name, route.version))
    if batcher is None:  # deleted while the request was being decoded
        raise NotFound(f"Request for unknown model: '{route.name}' version {route.version} is not found")
    checked = call.checked or batcher.check(call.inputs, call.id)
    if checked.rows > route.max_batch_size > 0:
        text = f"inference request batch-size must be <= {route.max_batch_size} for '{route.name}'"
        raise wrong(call.id, text)
    remaining_s = serving.deadline_s(call.timeout_s)
    serving.admission.enter(checked.nbytes)
    try:
        if call.pin is not None:
            await _open(serving, route, call.pin, remaining_s)
        if not call.priority and batcher.waiting_rows and (wait_s := batcher.expected_wait_s()) > remaining_s:
            text = f"Exceeds maximum queue size: the queue takes {wait_s:.1f} s, the deadline is in {remaining_s:.1f} s"
            raise Overloaded(text, "deadline", wait_s - remaining_s)
        deadline_ns = call.decoded_ns + int(remaining_s * 1e9)
        answer = await batcher.submit(checked, deadline_ns, call.pin, call.gone, call.priority)
        return Result(route, answer, checked.rows)
    finally:
        serving.admission.leave(checked.nbytes)


def observe(serving: Serving, call: Call, result: Result, ended_ns: int) -> None:
    """Write down an answered request."""
    answer = result.answer
    answer.counts.answered(
        result.rows,
        ended_ns - call.received_ns,
        call.decoded_ns - call.received_ns,
        answer.sent_ns - answer.queued_ns,
        answer.start_ns - answer.sent_ns,
        answer.end_ns - answer.start_ns,
        answer.answered_ns - answer.end_ns,
        ended_ns - answer.answered_ns,
    )


def observe_failure(serving: Serving, model: str, ref: str | None, error: BaseException, received_ns: int) -> None:
    """Write down a request that got no answer. Names nobody registered are counted together."""
    version = ""
    try:
        route = serving.table.resolve(model, ref)
        model, version = route.name, route.version
    except GatewayError:
        model = model if model in serving.table.models else "unknown"
    reason = error.reason if isinstance(error, GatewayError) else "error"
    if isinstance(error, Overloaded):
        serving.metrics.shed(error.reason)
    code = 499 if isinstance(error, ClientGone) else status_of(error)
    serving.statistics.failed(model, version, code, reason, time.monotonic_ns() - received_ns)


async def _open(serving: Serving, route: VersionRoute, pin: str, remaining_s: float) -> None:
    """See to it that a pinned variant is open, and stays open. Raises BadRequest, NotReady, DeadlineExceeded.

    Also when it is open already: the next table might do without it, and this request would wait in vain.
    """
    route.check_pin(pin)
    opening = None if serving.pin is None else serving.pin(route, pin)
    if opening is None:
        return
    try:
        await asyncio.wait_for(opening, remaining_s)
    except TimeoutError:
        raise DeadlineExceeded(f"variant {pin!r} was not open before the deadline; it may be next time") from None

"""A front: a gateway process beside the primary, on the same ports. `python -m gateway.fronts.front LINK`.

It decodes, checks, batches and answers as the primary does, with an event loop of its own, on channels of its own into
the primary's runners. It follows the catalog by itself. It has no compile worker, starts no runner, keeps its counts in
the ledger it was handed, and takes no signal: when to drain, the primary says. It ends with the primary.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import uvloop

from gateway import app
from gateway.compiling import watch
from gateway.errors import NotReady
from gateway.everyone import done
from gateway.fronts.borrowed import Borrowing
from gateway.fronts.health import CommonHealth
from gateway.fronts.ledger import Ledger
from gateway.fronts.link import Link, LinkDown, Verb, first_message
from gateway.httpd.server import Server
from gateway.logs import set_up
from gateway.metrics import inside
from gateway.routing.health import Subject
from gateway.serve import Serving
from gateway.settings import Settings
from gateway.state import Gateway

_LOOK_S = 0.01


class Upward:
    """Everyone, from a front: the primary sees to it."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def do(self, gateway: Gateway, deed: str, given: Mapping[str, Any]) -> list[Any]:
        return await self._asked("do", deed=deed, given=given)  # type: ignore[no-any-return]

    async def ask(self, gateway: Gateway, question: str, given: Mapping[str, Any]) -> Any:
        return await self._asked("ask", question=question, given=given)

    async def _asked(self, verb: str, **content: Any) -> Any:
        try:
            return await self._link.ask(verb, answer_s=10.0, **content)
        except LinkDown as exc:
            raise NotReady(f"the first gateway process does not answer: {exc}") from None


async def run(end: socket.socket) -> None:
    """Serve until the primary says to stop."""
    hello, (counts, listening) = first_message(end)
    settings = Settings(**hello["settings"])
    set_up(settings.log_level)
    link, ledger = Link(end), Ledger(counts)
    borrowing = Borrowing(link)
    health = CommonHealth(lambda subject, cause: link.tell("variant_died", subject=subject, cause=cause))
    serving = Serving(settings, ledger, health, borrowing.connect)
    traffic = watch(serving.admission, lambda flows: link.tell("traffic", flows=flows))
    async with app.opened(settings, serving, Upward(link)) as gateway, app.background(traffic=traffic):
        draining = asyncio.Event()
        link.listen(
            {
                "deed": lambda deed, given: done(gateway, deed, given),
                "inside": lambda: inside(gateway.serving),
                "died": borrowing.died,
                "variant_died": lambda subject, cause: health.heard(Subject(*subject), cause),
                "adopt_region": _adopting(gateway),
                "drain": draining.set,
            },
            on_end=lambda: os._exit(1),
        )
        while not draining.is_set():
            await asyncio.sleep(_LOOK_S)
            if not gateway.serving.ready()[0]:
                continue
            with socket.socket(fileno=listening) as listener:
                await _answer(gateway, link, listener, hello["grpc_port"], draining)
            return


async def _answer(
    gateway: Gateway, link: Link, listener: socket.socket, grpc_port: int | None, draining: asyncio.Event
) -> None:
    grpc = None if grpc_port is None else app.grpc_server(gateway.settings, grpc_port, shared=True)
    async with app.served(gateway, grpc, DrivenServer) as server, _passed_on(draining, server):
        gc.freeze()
        asyncio.get_running_loop().call_soon(link.tell, "up")
        await server.serve(sockets=[listener])


class DrivenServer(Server):
    """It hears no signals: the primary's word stands for them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def _passed_on(draining: asyncio.Event, server: Server) -> AsyncIterator[None]:
    """Each `drain` of the primary is one of the server."""

    async def pass_on() -> None:
        while True:
            await draining.wait()
            draining.clear()
            server.drain()

    task = asyncio.create_task(pass_on(), name="drain")
    try:
        yield
    finally:
        task.cancel()


def _adopting(gateway: Gateway) -> Verb:
    def adopt(name: str, key: str, offset: int, byte_size: int, fds: list[int]) -> None:
        gateway.serving.regions.adopt(name, key, offset, byte_size, fds[0])

    return adopt


def main() -> None:
    os.setpgid(0, 0)  # what a terminal sends goes to the first process alone (uvloop cannot ask for it at the start)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    uvloop.run(run(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()

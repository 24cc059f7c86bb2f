"""The primary: a gateway like any other that also keeps fronts, and is everyone's word.

Each front is a supervised child. What it needs it gets over its link: settings, its listening socket, a ledger, and
channels into the runners. When it dies, its counts are added to ours at once, its socket is answered here until it is
back, and its connections are lost: nothing else is.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from gateway import app
from gateway.children import Child
from gateway.everyone import DEEDS, answer
from gateway.fronts.health import CommonHealth
from gateway.fronts.ledger import Ledger
from gateway.fronts.lending import Lending
from gateway.fronts.link import Link
from gateway.fronts.ports import close_all, listen_together, reserve
from gateway.httpd.connection import Connection
from gateway.httpd.server import Server
from gateway.metrics import Inside
from gateway.routing.health import Subject
from gateway.serve import Serving
from gateway.settings import Settings
from gateway.state import Gateway
from gateway.statistics import Statistics

_GAUGES_S = 0.5
_SPARE_S = 5.0
"""How much longer than its drain a front may take to end."""


async def run(settings: Settings) -> int:
    """A gateway of several processes, until it is told to stop. Raises StartRefused."""
    with contextlib.ExitStack() as ports:
        with app.taking_port(settings):
            listeners = listen_together(settings.host, settings.port, settings.gateways)
        ports.callback(close_all, listeners)
        grpc = None
        if settings.grpc:
            with app.taking_grpc_port():
                reserved = ports.enter_context(reserve(settings.host, settings.grpc_port))
                grpc = app.grpc_server(settings, reserved.getsockname()[1], shared=True)
        fronts = Fronts(settings, listeners[1:], None if grpc is None else grpc.port)
        serving = Serving(settings, None, fronts.health, fronts.lending.connect)
        fronts.lending.needed = serving.runners.ensure
        where = app.address(listeners[0], grpc)
        async with (
            app.started(settings, serving, fronts) as gateway,
            app.served(gateway, grpc, fronts.server) as server,
            fronts.running(gateway, server),
            app.background(announcement=app.announce(gateway, where, fronts.trouble)),
        ):
            await server.serve(sockets=[listeners[0]])
            await fronts.ended()
    return 0


class Fronts:
    """All of them. To the routes of the primary it is everyone."""

    def __init__(self, settings: Settings, listeners: list[socket.socket], grpc_port: int | None) -> None:
        self.settings = settings
        self.grpc_port = grpc_port
        self.lending = Lending()
        self.health = CommonHealth(lambda subject, cause: self.tell_all("variant_died", subject=subject, cause=cause))
        self._all = [Front(nth, listener, self) for nth, listener in enumerate(listeners, 2)]

    @contextlib.asynccontextmanager
    async def running(self, gateway: Gateway, server: Server) -> AsyncIterator[None]:
        """Start them; whatever is left of them ends with the block."""
        assert isinstance(server, PrimaryServer)
        gateway.serving.statistics.others = self._statistics
        for front in self._all:
            front.begin(gateway, server)
        try:
            yield
        finally:
            await asyncio.gather(*(front.stop(0) for front in self._all))

    async def ended(self) -> None:
        """Wait until every front has drained."""
        patience_s = self.settings.drain_delay_s + self.settings.drain_timeout_s + _SPARE_S
        await asyncio.gather(*(front.ended(patience_s) for front in self._all))

    def server(self, *args: Any) -> Server:
        """The primary's own, which drains the fronts with itself."""
        return PrimaryServer(self, *args)

    def trouble(self) -> str:
        """Why not all of them answer; empty when they do."""
        down = [front.name for front in self._all if not front.up]
        return f"{', '.join(down)} is being started" if down else ""

    def drain(self) -> None:
        for front in self._all:
            front.last = True
        self.tell_all("drain")

    def stop_standing_in(self) -> None:
        """From now on nobody accepts connections, here or there."""
        for front in self._all:
            front.close_listener()

    def tell_all(self, verb: str, but: Link | None = None, **content: Any) -> None:
        for link in self._links():
            if link is not but:
                link.tell(verb, **content)

    async def do(self, gateway: Gateway, deed: str, given: Mapping[str, Any]) -> list[Any]:
        outcome = DEEDS[deed](gateway, **given)
        others = []
        for front in self._all:
            if front.link is not None and front.up:
                others.append(asyncio.ensure_future(front.link.ask("deed", deed=deed, given=given)))
            elif front.link is not None:  # nobody can ask it anything yet: what it will do is not waited for
                front.link.tell("deed", deed=deed, given=given)
        try:
            own = await outcome if inspect.isawaitable(outcome) else outcome
        finally:
            answers = await asyncio.gather(*others, return_exceptions=True)
        # A front that is gone, or refuses what the primary did, is asked for nothing: it follows when it can.
        return [own, *(one for one in answers if not isinstance(one, BaseException))]

    async def ask(self, gateway: Gateway, question: str, given: Mapping[str, Any]) -> Any:
        if question == "metrics":
            asked = (front.link.ask("inside", answer_s=_GAUGES_S) for front in self._all if front.link and front.up)
            answers = await asyncio.gather(*asked, return_exceptions=True)
            others = [Inside(*one) for one in answers if not isinstance(one, BaseException)]
            return gateway.serving.metrics.render(others).decode()
        found = answer(gateway, question, given)
        if question == "register_region":
            regions = gateway.serving.regions
            fds = [regions.descriptor(given["name"])]
            asked = (link.ask("adopt_region", fds, **given) for link in self._links())
            await asyncio.gather(*asked, return_exceptions=True)
        return found

    def _links(self) -> Iterator[Link]:
        return (front.link for front in self._all if front.link is not None)

    def _statistics(self) -> list[Statistics]:
        return [front.ledger.statistics() for front in self._all if front.ledger is not None]


class Front(Child):
    """One front, life after life."""

    def __init__(self, nth: int, listener: socket.socket, fronts: Fronts) -> None:
        super().__init__(f"gateway {nth}", "gateway.fronts.front", ())
        self.link: Link | None = None
        self.ledger: Ledger | None = None
        self.up = False
        self._listener = listener
        self._fronts = fronts
        self._stand_in: asyncio.Task[asyncio.Server] | None = None

    def begin(self, gateway: Gateway, server: PrimaryServer) -> None:
        self._gateway, self._server = gateway, server
        self.start()

    def close_listener(self) -> None:
        self._stop_standing_in()
        self._listener.close()

    async def _spawn(self) -> asyncio.subprocess.Process:
        end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ledger = Ledger.create()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=2,  # its log is ours; only the primary has something to say on stdout
                    pass_fds=(theirs.fileno(),),
                    env=self._environment,
                )
        except OSError:
            end.close()
            ledger.close()
            raise
        self.ledger = ledger
        link = self.link = Link(end)
        settings = self._fronts.settings.model_dump(mode="json")
        if not self._gateway.keyring.is_open:  # once closed, closed: also when the last key was revoked meanwhile
            settings["require_keys"] = True
        fds = [self.ledger.fd, self._listener.fileno()]
        link.tell("hello", fds, settings=settings, grpc_port=self._fronts.grpc_port)
        self._tell_what_holds(link)
        link.listen(self._verbs(link), lambda: None)  # that it has gone, its end as a process says
        return process

    def _verbs(self, link: Link) -> dict[str, Any]:
        gateway, fronts, lending = self._gateway, self._fronts, self._fronts.lending

        def variant_died(subject: list[str], cause: str) -> None:
            fronts.health.heard(Subject(*subject), cause)
            fronts.tell_all("variant_died", link, subject=subject, cause=cause)

        return {
            "up": self._is_up,
            "do": lambda deed, given: fronts.do(gateway, deed, given),
            "ask": lambda question, given: fronts.ask(gateway, question, given),
            "lend": lambda **loan: lending.lend(link, **loan),
            "kill": lambda number, why: lending.kill(link, number, why),
            "variant_died": variant_died,
            "traffic": self._tell_worker,
        }

    def _tell_worker(self, flows: bool) -> None:
        if self._gateway.worker is not None:
            self._gateway.worker.tell(self.name, flows)

    def _tell_what_holds(self, link: Link) -> None:
        """What was done before it began; what is done from now on, it is told like the others."""
        gateway = self._gateway
        for deed, given in (*gateway.follower.held(), *gateway.controls.set_before()):
            link.tell("deed", deed=deed, given=given)
        for subject, cause in self._fronts.health.recent():
            link.tell("variant_died", subject=subject, cause=cause)
        regions = gateway.serving.regions
        for region in regions.status():
            link.tell("adopt_region", [regions.descriptor(str(region["name"]))], **region)

    def _is_up(self) -> None:
        self.up = True
        self._stop_standing_in()

    def _died(self) -> None:
        assert self.link is not None and self.ledger is not None
        self.up = False
        self.link.close()
        self._tell_worker(flows=False)
        self._fronts.lending.left(self.link)
        serving = self._gateway.serving
        serving.statistics.absorb(self.ledger.statistics(), lambda version: version in serving.batchers)
        self.ledger.close()
        self.link = self.ledger = None
        if self._server.started and not self._server.should_exit:
            self._stand_in = asyncio.create_task(self._server.stand_in(self._listener), name=f"for {self.name}")

    def _stop_standing_in(self) -> None:
        if self._stand_in is not None:
            self._stand_in.add_done_callback(_close)
            self._stand_in = None


def _close(task: asyncio.Task[asyncio.Server]) -> None:
    if not task.cancelled():
        task.result().close()


class PrimaryServer(Server):
    """Drains the fronts with itself, and answers for one that is down."""

    def __init__(self, fronts: Fronts, *args: Any) -> None:
        super().__init__(*args)
        self._fronts = fronts

    def drain(self) -> None:
        super().drain()
        self._fronts.drain()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._fronts.stop_standing_in()
        await super().shutdown(sockets)

    async def stand_in(self, listener: socket.socket) -> asyncio.Server:
        """Accept what comes to `listener`, until the server that is returned is closed."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._connection, sock=listener.dup(), backlog=self.config.backlog)

    def _connection(self) -> Connection:
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

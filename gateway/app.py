"""Builds everything a gateway is made of, in order, and takes it down again: nothing long-lived is built elsewhere.

The order matters to whoever waits: the port is taken first (so that a taken one is known at once), then the store is
opened, then runners and the follower start, and the compile worker last, since nobody waits for it yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import uvloop

from gateway import uploads
from gateway.accounts import Accounts
from gateway.api import build_app
from gateway.auth import Keyring, is_loopback
from gateway.compiling import CompileWorker, watch
from gateway.everyone import Alone, Everyone
from gateway.httpd.server import Server, listen, url_of
from gateway.logs import LOGGER, event, set_up
from gateway.routing.follow import Follower
from gateway.serve import Serving
from gateway.server_controls import ServerControls
from gateway.settings import Settings
from gateway.state import Gateway
from model_store.errors import StoreError
from model_store.store import ModelStore

if TYPE_CHECKING:
    from gateway.grpc.server import GrpcServer

_LOOK_S, _IMPATIENT_S = 0.01, 10.0


class StartRefused(Exception):
    """The gateway will not start like this; the message says what to change."""


def run(settings: Settings) -> int:
    """Run a gateway until it is told to stop; the exit code of the process."""
    set_up(settings.log_level)
    try:
        code: int = uvloop.run(_run(settings) if settings.gateways == 1 else _run_many(settings))
    except (StartRefused, StoreError, OSError) as exc:
        event(logging.ERROR, "not started", reason=str(exc))
        return 1
    return code


async def _run(settings: Settings) -> int:
    with taking_port(settings):
        listener = listen(settings.host, settings.port)
    with listener:
        grpc = None
        if settings.grpc:
            with taking_grpc_port():
                grpc = grpc_server(settings, settings.grpc_port)
        async with (
            started(settings, Serving(settings)) as gateway,
            served(gateway, grpc) as server,
            background(announcement=announce(gateway, address(listener, grpc))),
        ):
            await server.serve(sockets=[listener])
    return 0


async def _run_many(settings: Settings) -> int:
    from gateway.fronts import primary  # one process has no use for it

    return await primary.run(settings)


@contextlib.contextmanager
def taking_port(settings: Settings) -> Iterator[None]:
    """Raises StartRefused when the port is taken."""
    try:
        yield
    except OSError as exc:
        where = f"{settings.host}:{settings.port}"
        raise StartRefused(f"cannot listen on {where}: {exc.strerror}; take another --port (0: any free one)") from exc


@contextlib.contextmanager
def taking_grpc_port() -> Iterator[None]:
    """Raises StartRefused when the port is taken."""
    try:
        yield
    except OSError as exc:
        raise StartRefused(
            f"cannot serve gRPC: {exc}; take another --grpc-port (0: any free one), or --no-grpc"
        ) from exc


def grpc_server(settings: Settings, port: int, shared: bool = False) -> GrpcServer:
    """Raises OSError when the port is taken."""
    from gateway.grpc.server import GrpcServer  # its messages cost memory: only who serves it pays

    return GrpcServer(settings.host, port, shared)


def address(listener: socket.socket, grpc: GrpcServer | None) -> str:
    """Where it answers, in words."""
    return url_of(listener) + ("" if grpc is None else f" (gRPC: {grpc.address})")


@contextlib.asynccontextmanager
async def served(
    gateway: Gateway, grpc: GrpcServer | None, server: Callable[..., Server] = Server
) -> AsyncIterator[Server]:
    """The HTTP server of a gateway, ready to serve; gRPC answers already, and drains when HTTP does."""
    closing = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        if grpc is not None:
            await grpc.start(gateway)
            await stack.enter_async_context(_closed_with(grpc, closing, gateway.settings.drain_timeout_s))
        yield server(build_app(gateway), gateway.settings, lambda: _drain(gateway), closing.set)


@contextlib.asynccontextmanager
async def _closed_with(grpc: GrpcServer, closing: asyncio.Event, patience_s: float) -> AsyncIterator[None]:
    """Drain gRPC while HTTP drains, from the moment `closing` is set; wait for it in the end."""

    async def close() -> None:
        await closing.wait()
        await grpc.close(patience_s)

    task = asyncio.create_task(close(), name="gRPC")
    try:
        yield
    finally:
        closing.set()
        await task


@contextlib.asynccontextmanager
async def started(settings: Settings, serving: Serving, everyone: Everyone | None = None) -> AsyncIterator[Gateway]:
    """Everything, running: what answers, and what there is once. Raises StartRefused, StoreError."""
    worker = CompileWorker(settings) if settings.compile else None
    async with opened(settings, serving, everyone, worker) as gateway, contextlib.AsyncExitStack() as stack:
        await asyncio.to_thread(uploads.sweep, settings.data / "uploads")
        accounts = Accounts(gateway.store, serving.metrics)
        await stack.enter_async_context(background(accounts=accounts.keep()))
        if worker is not None:
            worker.start()
            stack.push_async_callback(worker.stop)
            traffic = watch(serving.admission, partial(worker.tell, "gateway"))
            await stack.enter_async_context(background(traffic=traffic))
        yield gateway


@contextlib.asynccontextmanager
async def opened(
    settings: Settings, serving: Serving, everyone: Everyone | None = None, worker: CompileWorker | None = None
) -> AsyncIterator[Gateway]:
    """What every process that answers is made of, running. Raises StartRefused, StoreError."""
    async with contextlib.AsyncExitStack() as stack:
        store = await asyncio.to_thread(ModelStore.open, settings.data, settings.database_url)
        stack.callback(store.close)
        keyring = await _keyring(settings, store)
        await stack.enter_async_context(serving)
        follower = Follower(store, serving, settings)
        await stack.enter_async_context(background(follower=follower.run(), keyring=keyring.watch()))
        controls = ServerControls(settings.log_level)
        yield Gateway(settings, store, serving, follower, keyring, worker, controls, everyone or Alone())


async def _keyring(settings: Settings, store: ModelStore) -> Keyring:
    loopback = is_loopback(settings.host)
    keyring = Keyring(store.catalog, require=settings.require_keys, named=settings.insecure or not loopback)
    await keyring.refresh()
    if keyring.is_open and not loopback and not settings.insecure:
        raise StartRefused(
            f"listening on {settings.host} would let anyone in: there is no API key yet. Make one with "
            f"`forgeway keys create --data {settings.data}`, or say --insecure if the network is trusted"
        )
    return keyring


def _drain(gateway: Gateway) -> None:
    """The first signal: not ready from now on; compiling stops, since its cores are needed to finish quickly."""
    gateway.draining.set()
    event(logging.INFO, "draining", delay_s=gateway.settings.drain_delay_s, timeout_s=gateway.settings.drain_timeout_s)
    if gateway.worker is not None:
        gateway.worker.stop_soon()


async def announce(gateway: Gateway, where: str, trouble: Callable[[], str] = str) -> None:
    """Say that the gateway answers, once it does: one line on stdout, for people and for scripts that wait.

    `trouble`: why it does not yet, beside what keeps this process from it; empty when nothing does.
    """
    waited = 0.0
    while reason := gateway.serving.ready()[1] or trouble():
        await asyncio.sleep(_LOOK_S)
        waited += _LOOK_S
        if waited >= _IMPATIENT_S:
            event(logging.WARNING, "not ready yet", reason=reason)
            waited = 0.0
    # What was imported and built by now stays: a full collection need not walk it (100 ms in which nobody is answered).
    gc.freeze()
    print(f"forgeway is ready at {where}", flush=True)  # noqa: T201 - the one line that `serve` says


@contextlib.asynccontextmanager
async def background(**coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Tasks, by name, that run until the block ends. One that fails is logged: it should have known better."""
    tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in coroutines.items()]
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOGGER.error("task failed", exc_info=error, extra={"facts": {"task": task.get_name()}})

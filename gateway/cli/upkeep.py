"""`doctor`, `fsck` and `demo`: is this machine, this data, this product in order?"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.output import FAILURE, Json, Key, Url, document, say, table
from gateway.cli.serving import Data, DatabaseUrl, effective
from gateway.cli.storing import opened_store
from gateway.settings import Settings

Check = tuple[str, bool, str]
"""What was looked at, whether it is in order, and the finding in words."""


def doctor(data: Data = None, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Look at what a gateway needs from this machine: Python, runtimes, kernel, data folder, ports."""
    settings = effective({"data": data})
    checks = [
        *_python(),
        *_targets(),
        *_kernel(),
        *_processes(settings),
        *_folder(settings.data),
        *_ports(settings),
        *_gateway(url, key),
    ]
    if as_json:
        document(
            {
                "ok": all(ok for _, ok, _ in checks),
                "checks": [dict(zip(("name", "ok", "detail"), c, strict=True)) for c in checks],
            }
        )
    else:
        table(None, ["check", "", "finding"], [(name, "ok" if ok else "NOT OK", detail) for name, ok, detail in checks])
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(FAILURE)


def check(
    data: Data = None,
    database_url: DatabaseUrl = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove blobs that no row names.")] = False,
    as_json: Json = False,
) -> None:
    """Check every row against every blob, both ways, and every blob against its digest."""
    from model_store.fsck import fsck

    with opened_store(data, database_url) as store:
        report = fsck(store, repair=repair)
    if as_json:
        document(
            {
                "ok": not report.problems,
                "problems": report.problems,
                "blobs": report.blobs,
                "rows": report.rows,
                "removed": report.removed,
                "unreferenced": report.unreferenced,
            }
        )
    else:
        for problem in report.problems:
            say(problem)
        say(f"{report.blobs} blobs and {report.rows} rows checked; {len(report.problems)} problems")
        if repair:
            say(f"{report.removed} leftovers removed")
        elif report.unreferenced:
            say(f"{report.unreferenced} blobs are named by nothing; `forgeway fsck --repair` removes them")
    if report.problems:
        raise typer.Exit(FAILURE)


def demo() -> None:
    """Start a gateway, register a real model, compile it, predict, and print the proof."""
    from gateway.demo import run

    raise typer.Exit(run() or 0)


def _python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield "python", sys.version_info >= (3, 11), f"{version} (3.11 or newer is needed)"


def _targets() -> Iterator[Check]:
    from gateway.routes.targets import describe_targets

    facts = describe_targets()
    for target in facts["targets"]:
        missing = "; ".join(f"no {name}: {why}" for name, why in target["unavailable_precisions"].items())
        finding = ", ".join(target["precisions"]) + (f" ({missing})" if missing else "")
        yield f"target {target['name']}", target["available"], finding if target["available"] else target["reason"]
    yield "cpu", True, ", ".join(f"{name} {value}" for name, value in facts["hardware"].items())


def _kernel() -> Iterator[Check]:
    try:
        os.close(os.memfd_create("forgeway-doctor"))
        os.close(os.pidfd_open(os.getpid()))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.close()
        theirs.close()
    except OSError as exc:
        yield "kernel", False, f"memfd, pidfd or SEQPACKET sockets do not work here: {exc}"
    else:
        yield "kernel", True, f"{os.uname().release}: memfd, pidfd and SEQPACKET sockets work"


def _processes(settings: Settings) -> Iterator[Check]:
    cores, count = len(os.sched_getaffinity(0)), settings.gateways
    few = "" if count == 1 or cores >= 4 else "; on fewer than 4 cores more than one gains nothing"
    yield "gateways", count <= cores, f"processes that accept requests: {count}, cores: {cores}{few}"


def _folder(data: Path) -> Iterator[Check]:
    from model_store.errors import StoreError
    from model_store.store import ModelStore

    parent = next(folder for folder in (data, *data.absolute().parents) if folder.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=parent) as probe:
            started = time.perf_counter()
            probe.write(b"forgeway")
            probe.flush()
            os.fsync(probe.fileno())
            took = time.perf_counter() - started
    except OSError as exc:
        yield "data folder", False, f"{parent} cannot be written to: {exc.strerror}; name another with --data"
        return
    space = os.statvfs(parent)
    free = space.f_bavail * space.f_frsize / 2**30
    yield "data folder", free > 1, f"{data}: write and fsync take {took * 1e3:.1f} ms, {free:.1f} GiB free"
    if data.exists():
        try:
            ModelStore.open(data).close()
        except StoreError as exc:
            yield "catalog", False, str(exc)
        else:
            yield "catalog", True, "opens, and its schema is up to date"


def _ports(settings: Any) -> Iterator[Check]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as exc:
            # A running gateway is a good reason for a taken port, so this is a finding and no fault.
            yield (
                "port",
                True,
                f"{settings.host}:{settings.port} is taken ({exc.strerror}); `serve --port 0` takes a free one",
            )
        else:
            yield "port", True, f"{settings.host}:{settings.port} is free"


def _gateway(url: str | None, key: str | None) -> Iterator[Check]:
    from gateway.client import Client, ClientError, Retry

    with Client(url, key, timeout=3, retry=Retry(attempts=1)) as client:
        try:
            ready = client.is_ready()
        except ClientError:
            # Only asked for by name is its absence a fault.
            yield "gateway", url is None, f"none answers at {client.url}; `forgeway serve` starts one"
        else:
            yield "gateway", ready, f"{client.url} is {'ready' if ready else 'not ready'}"

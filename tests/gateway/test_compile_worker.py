"""Where the catalog is, told to those who open it and to nobody else: a command line is everybody's to read."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

from gateway.compiling import CompileWorker
from gateway.settings import settings_from


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_the_worker_of_a_gateway_opens_a_catalog_that_its_command_line_does_not_name(tmp_path):
    catalog = tmp_path / "s3cret.db"
    settings = settings_from({"data": tmp_path / "data", "database_url": f"sqlite:///{catalog}"})

    async def walk() -> str:
        worker = CompileWorker(settings)
        worker.start()
        try:
            async with asyncio.timeout(30):
                while not catalog.is_file():
                    await asyncio.sleep(0.05)
            assert worker.pid is not None
            return command_of(worker.pid)
        finally:
            await worker.stop()

    command = asyncio.run(walk())
    assert "compilers.worker" in command
    assert "s3cret" not in command


def test_nor_does_that_of_a_worker_apart_from_a_gateway(tmp_path):
    catalog = tmp_path / "s3cret.db"
    environment = os.environ | {"FORGEWAY_DATABASE_URL": f"sqlite:///{catalog}"}
    line = [sys.executable, "-m", "gateway.cli", "worker", "--data", str(tmp_path / "data")]
    with subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL) as worker:
        try:
            ends = time.monotonic() + 30
            while not catalog.is_file() and time.monotonic() < ends:
                time.sleep(0.05)
            assert catalog.is_file()
            command = command_of(worker.pid)
        finally:
            worker.terminate()
    assert "compilers.worker" in command
    assert "s3cret" not in command


def test_without_a_catalog_elsewhere_nothing_is_told(tmp_path):
    assert settings_from({"data": tmp_path}).catalog_environment() == {}


class Scarce(CompileWorker):
    """One for which there is no process at first."""

    refusals = 1

    async def _spawn(self) -> asyncio.subprocess.Process:
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return await super()._spawn()


def test_a_worker_for_which_there_is_no_process_now_is_started_a_little_later(tmp_path):
    async def walk() -> None:
        worker = Scarce(settings_from({"data": tmp_path / "data"}))
        worker.start()
        try:
            async with asyncio.timeout(30):
                while worker.pid is None:
                    await asyncio.sleep(0.05)
        finally:
            await worker.stop()

    asyncio.run(walk())

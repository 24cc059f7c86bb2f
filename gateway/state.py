"""What a running gateway is made of, as the routes see it. Built by app.py and nowhere else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from gateway.auth import Keyring
from gateway.compiling import CompileWorker
from gateway.everyone import Alone, Everyone
from gateway.routing.follow import Follower
from gateway.serve import Serving
from gateway.server_controls import ServerControls
from gateway.settings import Settings
from gateway.shared_memory import CudaRegions
from model_store.store import ModelStore


@dataclass(frozen=True)
class Gateway:
    settings: Settings
    store: ModelStore
    serving: Serving
    follower: Follower
    keyring: Keyring
    worker: CompileWorker | None
    controls: ServerControls
    everyone: Everyone = field(default_factory=Alone)
    cuda_regions: CudaRegions = field(default_factory=CudaRegions)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    """Uploads received at once: each may hold `max_upload_bytes` of disk."""
    intakes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Uploads examined at once: each is a child process that holds a model in memory."""

    async def do(self, deed: str, **given: Any) -> list[Any]:
        """Have it done by every process (gateway/everyone.py); the answers."""
        return await self.everyone.do(self, deed, given)

    async def ask(self, question: str, **given: Any) -> Any:
        """The answer of all processes together."""
        return await self.everyone.ask(self, question, given)

    async def followed(self) -> None:
        """Wait until routing shows what the catalog holds now, so that an answered change is a change in force."""
        await self.do("follow", sequence=await asyncio.to_thread(self.store.catalog.sequence))


async def _gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


Here = Annotated[Gateway, Depends(_gateway_of)]
"""Parameter type of a route that needs the gateway."""

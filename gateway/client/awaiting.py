"""The client for an event loop: the verbs of `blocking`, awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx

from gateway.client import calls
from gateway.client.calls import Call, Prediction
from gateway.client.connection import Connection, give_up, within
from gateway.client.errors import ClientError, error_of
from gateway.client.events import Event, EventReader
from gateway.client.uploading import Progress, Source, Upload

T = TypeVar("T")
_POLL_S = 0.2
_SILENCE_S = 60.0


class AsyncClient(Connection):
    """A gateway, called from an event loop. Use it as an async context manager or `aclose` it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = httpx.AsyncClient(base_url=self.url, headers=self._headers)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str | None = None,
        outputs: Sequence[str] | None = None,
        variant: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Prediction:
        """Outputs by name for `inputs` (arrays by name, first axis = rows). `variant` pins one."""
        return await self._do(calls.infer(model, inputs, version, outputs, variant, timeout, request_id), timeout)

    async def register(
        self,
        name: str,
        model: Source,
        *,
        samples: Source | Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        timeout: float = 3600.0,
    ) -> dict[str, Any]:
        """Upload a model (a path, or the bytes): name, version, status and job ids. It answers within seconds."""

        async def send(deadline: float) -> dict[str, Any]:
            body = Upload(model, samples, policy, progress)
            try:
                request = httpx.Request(
                    "POST", self.url + calls.upload_path(name), headers=self._headers | body.headers
                )
                request.stream = body
                request.extensions = {"timeout": within(deadline).as_dict()}
                response = await self._http.send(request)
            finally:
                body.close()
            if not response.is_success:
                raise error_of(response)
            answer: dict[str, Any] = response.json()
            return answer

        return await self._trying(send, False, timeout)

    async def wait(
        self, name: str, version: str, *, timeout: float = 3600.0, on_event: Callable[[Event], None] | None = None
    ) -> dict[str, Any]:
        """Wait until every job of the version has ended; the version. `on_event` gets each line of the jobs' logs."""
        deadline = time.monotonic() + timeout
        seen: dict[str, int] = {}
        while True:
            facts = await self.version(name, version)
            if on_event is not None:
                await self._tell(name, version, seen, on_event)
            if facts["status"] in ("ready", "failed"):
                return facts
            give_up(facts, deadline)
            await asyncio.sleep(_POLL_S)

    async def _tell(self, name: str, version: str, seen: dict[str, int], on_event: Callable[[Event], None]) -> None:
        for job in await self.jobs(name=name, version=version):
            async for event in self.events(job["id"], after=seen.get(job["id"], 0), follow=False):
                seen[job["id"]] = event.id
                on_event(event)

    async def events(self, job: str, *, after: int = 0, follow: bool = True) -> AsyncIterator[Event]:
        """The job's log from event `after` on, until the job has ended; a broken stream is taken up where it broke.

        `follow=False` ends with what there is now.
        """
        reader = EventReader(after)
        attempt = 0
        while True:
            try:
                async with self._http.stream(
                    "GET", calls.events_path(job, follow), headers=reader.headers, timeout=_SILENCE_S
                ) as answer:
                    if not answer.is_success:
                        await answer.aread()
                        raise error_of(answer)
                    async for line in answer.aiter_lines():
                        if (event := reader.feed(line)) is not None:
                            attempt = 0
                            yield event
                if reader.ended or not follow:
                    return
            except httpx.HTTPError as exc:
                attempt += 1
                await asyncio.sleep(self._pause(attempt, self._foreign(exc), True, time.monotonic() + _SILENCE_S))

    async def models(self) -> list[dict[str, Any]]:
        """Every model: name, versions, aliases."""
        return await self._do(calls.models())

    async def model(self, name: str) -> dict[str, Any]:
        """One model with its versions and their status."""
        return await self._do(calls.model(name))

    async def version(self, name: str, version: str) -> dict[str, Any]:
        """One version: status, signature, and its variants with verdict, reason and evidence."""
        return await self._do(calls.version(name, version))

    async def report(self, name: str, version: str) -> dict[str, Any]:
        """The proof card of a version: everything tried, measured and chosen, and how to repeat it."""
        return await self._do(calls.report(name, version))

    async def report_page(self, name: str, version: str) -> str:
        """The proof card as one self-contained HTML page."""
        return await self._do(calls.report_page(name, version))

    async def route(self, name: str, *, rows: int = 1, version: str | None = None) -> dict[str, Any]:
        """Which variant would answer a batch of `rows`, and why."""
        return await self._do(calls.route(name, rows, version))

    async def compile(self, name: str, version: str, **request: Any) -> dict[str, Any]:
        """Compile again; `request` may hold targets, recipes and policy."""
        return await self._do(calls.compile_again(name, version, request))

    async def set_alias(self, name: str, alias: str, version: str) -> dict[str, Any]:
        """Make `alias` point at `version`; predictions that name no version follow `champion`."""
        return await self._do(calls.set_alias(name, alias, version))

    async def delete_alias(self, name: str, alias: str) -> dict[str, Any]:
        return await self._do(calls.delete_alias(name, alias))

    async def delete(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Unload and delete a version, or the whole model."""
        return await self._do(calls.delete(name, version))

    async def jobs(
        self, *, name: str | None = None, version: str | None = None, state: str | None = None
    ) -> list[dict[str, Any]]:
        """Compile jobs, newest first."""
        return await self._do(calls.jobs(name, version, state))

    async def job(self, job: str) -> dict[str, Any]:
        return await self._do(calls.job(job))

    async def cancel(self, job: str) -> dict[str, Any]:
        return await self._do(calls.cancel(job))

    async def targets(self) -> dict[str, Any]:
        """What the gateway can build for and run on, and why not."""
        return await self._do(calls.targets())

    async def metadata(self, name: str, version: str | None = None) -> dict[str, Any]:
        """V2 model metadata: inputs, outputs, ready versions."""
        return await self._do(calls.metadata(name, version))

    async def metrics(self) -> str:
        """The text that Prometheus scrapes."""
        return await self._do(calls.metrics())

    async def is_ready(self) -> bool:
        return await self._do(calls.ready())

    async def _do(self, call: Call[T], timeout: float | None = None) -> T:
        async def send(deadline: float) -> T:
            return self._read(call, await self._http.request(**self._request(call, deadline)))

        return await self._trying(send, call.again, timeout or self.timeout)

    async def _trying(self, send: Callable[[float], Awaitable[T]], again: bool, timeout: float) -> T:
        deadline = time.monotonic() + timeout
        attempt = 0
        while True:
            attempt += 1
            try:
                return await send(deadline)
            except httpx.HTTPError as exc:
                error = self._foreign(exc)
            except ClientError as exc:
                error = exc
            await asyncio.sleep(self._pause(attempt, error, again, deadline))

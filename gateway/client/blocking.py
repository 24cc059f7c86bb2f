"""The client for threads: every verb is one line over `calls`; `awaiting` holds its twin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Client(Connection):
    """A gateway, called from threads. Share it between threads freely; use it as a context manager or `close` it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = httpx.Client(base_url=self.url, headers=self._headers)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(
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
        return self._do(calls.infer(model, inputs, version, outputs, variant, timeout, request_id), timeout)

    def register(
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

        def send(deadline: float) -> dict[str, Any]:
            body = Upload(model, samples, policy, progress)
            try:
                request = httpx.Request(
                    "POST", self.url + calls.upload_path(name), headers=self._headers | body.headers
                )
                request.stream = body
                request.extensions = {"timeout": within(deadline).as_dict()}
                response = self._http.send(request)
            finally:
                body.close()
            if not response.is_success:
                raise error_of(response)
            answer: dict[str, Any] = response.json()
            return answer

        return self._trying(send, False, timeout)

    def wait(
        self, name: str, version: str, *, timeout: float = 3600.0, on_event: Callable[[Event], None] | None = None
    ) -> dict[str, Any]:
        """Wait until every job of the version has ended; the version. `on_event` gets each line of the jobs' logs."""
        deadline = time.monotonic() + timeout
        seen: dict[str, int] = {}
        while True:
            facts = self.version(name, version)
            if on_event is not None:
                self._tell(name, version, seen, on_event)
            if facts["status"] in ("ready", "failed"):
                return facts
            give_up(facts, deadline)
            time.sleep(_POLL_S)

    def _tell(self, name: str, version: str, seen: dict[str, int], on_event: Callable[[Event], None]) -> None:
        for job in self.jobs(name=name, version=version):
            for event in self.events(job["id"], after=seen.get(job["id"], 0), follow=False):
                seen[job["id"]] = event.id
                on_event(event)

    def events(self, job: str, *, after: int = 0, follow: bool = True) -> Iterator[Event]:
        """The job's log from event `after` on, until the job has ended; a broken stream is taken up where it broke.

        `follow=False` ends with what there is now.
        """
        reader = EventReader(after)
        attempt = 0
        while True:
            try:
                with self._http.stream(
                    "GET", calls.events_path(job, follow), headers=reader.headers, timeout=_SILENCE_S
                ) as answer:
                    if not answer.is_success:
                        answer.read()
                        raise error_of(answer)
                    for line in answer.iter_lines():
                        if (event := reader.feed(line)) is not None:
                            attempt = 0
                            yield event
                if reader.ended or not follow:
                    return
            except httpx.HTTPError as exc:
                attempt += 1
                time.sleep(self._pause(attempt, self._foreign(exc), True, time.monotonic() + _SILENCE_S))

    def models(self) -> list[dict[str, Any]]:
        """Every model: name, versions, aliases."""
        return self._do(calls.models())

    def model(self, name: str) -> dict[str, Any]:
        """One model with its versions and their status."""
        return self._do(calls.model(name))

    def version(self, name: str, version: str) -> dict[str, Any]:
        """One version: status, signature, and its variants with verdict, reason and evidence."""
        return self._do(calls.version(name, version))

    def report(self, name: str, version: str) -> dict[str, Any]:
        """The proof card of a version: everything tried, measured and chosen, and how to repeat it."""
        return self._do(calls.report(name, version))

    def report_page(self, name: str, version: str) -> str:
        """The proof card as one self-contained HTML page."""
        return self._do(calls.report_page(name, version))

    def route(self, name: str, *, rows: int = 1, version: str | None = None) -> dict[str, Any]:
        """Which variant would answer a batch of `rows`, and why."""
        return self._do(calls.route(name, rows, version))

    def compile(self, name: str, version: str, **request: Any) -> dict[str, Any]:
        """Compile again; `request` may hold targets, recipes and policy."""
        return self._do(calls.compile_again(name, version, request))

    def set_alias(self, name: str, alias: str, version: str) -> dict[str, Any]:
        """Make `alias` point at `version`; predictions that name no version follow `champion`."""
        return self._do(calls.set_alias(name, alias, version))

    def delete_alias(self, name: str, alias: str) -> dict[str, Any]:
        return self._do(calls.delete_alias(name, alias))

    def delete(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Unload and delete a version, or the whole model."""
        return self._do(calls.delete(name, version))

    def jobs(
        self, *, name: str | None = None, version: str | None = None, state: str | None = None
    ) -> list[dict[str, Any]]:
        """Compile jobs, newest first."""
        return self._do(calls.jobs(name, version, state))

    def job(self, job: str) -> dict[str, Any]:
        return self._do(calls.job(job))

    def cancel(self, job: str) -> dict[str, Any]:
        return self._do(calls.cancel(job))

    def targets(self) -> dict[str, Any]:
        """What the gateway can build for and run on, and why not."""
        return self._do(calls.targets())

    def metadata(self, name: str, version: str | None = None) -> dict[str, Any]:
        """V2 model metadata: inputs, outputs, ready versions."""
        return self._do(calls.metadata(name, version))

    def metrics(self) -> str:
        """The text that Prometheus scrapes."""
        return self._do(calls.metrics())

    def is_ready(self) -> bool:
        return self._do(calls.ready())

    def _do(self, call: Call[T], timeout: float | None = None) -> T:
        def send(deadline: float) -> T:
            return self._read(call, self._http.request(**self._request(call, deadline)))

        return self._trying(send, call.again, timeout or self.timeout)

    def _trying(self, send: Callable[[float], T], again: bool, timeout: float) -> T:
        deadline = time.monotonic() + timeout
        attempt = 0
        while True:
            attempt += 1
            try:
                return send(deadline)
            except httpx.HTTPError as exc:
                error = self._foreign(exc)
            except ClientError as exc:
                error = exc
            time.sleep(self._pause(attempt, error, again, deadline))

"""What the blocking and the awaiting client have in common: where, with which key, how long, how often."""

from __future__ import annotations

import os
import time
from typing import Any, TypeVar

import httpx

from gateway.client.calls import Call
from gateway.client.errors import ClientError, DeadlineExceeded, Unreachable, WaitTimeout, error_of
from gateway.client.retry import Retry

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_S = 5.0


class Connection:
    """url: default FORGEWAY_URL, else http://127.0.0.1:8000. key: an API key, default FORGEWAY_API_KEY.

    timeout: seconds a call may take in all, retries included.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, timeout: float = 30.0, retry: Retry | None = None
    ) -> None:
        self.url = (url or os.environ.get("FORGEWAY_URL") or DEFAULT_URL).rstrip("/")
        self.timeout = timeout
        self.retry = retry or Retry()
        key = key or os.environ.get("FORGEWAY_API_KEY")
        self._headers = {"accept-encoding": "identity"} | ({"authorization": f"Bearer {key}"} if key else {})

    def _request(self, call: Call[Any], deadline: float) -> dict[str, Any]:
        return {
            "method": call.method,
            "url": call.path,
            "params": dict(call.params) or None,
            "headers": dict(call.headers),
            "content": call.content,
            "timeout": within(deadline),
        }

    def _read(self, call: Call[T], response: httpx.Response) -> T:
        if response.is_success or call.refusals:
            return call.read(response)
        raise error_of(response)

    def _foreign(self, exc: httpx.HTTPError) -> ClientError:
        """The one bridge for httpx's errors."""
        if isinstance(exc, httpx.TimeoutException) and not isinstance(exc, httpx.ConnectTimeout):
            return DeadlineExceeded(f"no answer from {self.url} in time")
        return Unreachable(
            f"no gateway answers at {self.url} ({exc}); start one with `forgeway serve`, or name another"
        )

    def _pause(self, attempt: int, error: ClientError, again: bool, deadline: float) -> float:
        """Seconds to the next try. Raises `error` when there is to be none."""
        pause = self.retry.pause(attempt, error, again)
        if pause is None or time.monotonic() + pause >= deadline:
            raise error
        return pause


def within(deadline: float) -> httpx.Timeout:
    left = max(0.001, deadline - time.monotonic())
    return httpx.Timeout(left, connect=min(left, CONNECT_S))


def give_up(facts: dict[str, Any], deadline: float) -> None:
    """Raises WaitTimeout when `deadline` has passed."""
    if time.monotonic() > deadline:
        raise WaitTimeout(f"{facts['name']} version {facts['version']} is still {facts['status']}; its jobs go on")

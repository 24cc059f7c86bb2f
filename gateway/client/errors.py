"""What a call to a gateway can end in.

ClientError                 root; `status` is the HTTP status (None: there was no answer), `retry_after` seconds or None
├── Unreachable             no connection, or it broke
├── BadRequest              400 and every other 4xx: the message says what was wrong
├── Unauthorized            401: no key, or not a valid one
├── Forbidden               403: the key lacks a scope, or the origin is foreign
├── NotFound                404
├── Conflict                409
├── TooLarge                413
├── Unavailable             429, 503: overloaded, not ready or draining; tried again before it is raised
├── DeadlineExceeded        504, or the caller's own deadline
├── ServerFailed            500 and every other 5xx
└── WaitTimeout             `wait` gave up; the job goes on
"""

from __future__ import annotations

import httpx
import orjson


class ClientError(Exception):
    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Unreachable(ClientError):
    """No gateway answers at the URL."""


class BadRequest(ClientError):
    """The gateway refused what was sent."""


class Unauthorized(ClientError):
    """A valid API key is needed."""


class Forbidden(ClientError):
    """The API key does not allow this."""


class NotFound(ClientError):
    """No such model, version, alias, variant or job."""


class Conflict(ClientError):
    """The change contradicts what exists."""


class TooLarge(ClientError):
    """The body exceeds a limit of the gateway."""


class Unavailable(ClientError):
    """Not now: overloaded, not ready or draining."""


class DeadlineExceeded(ClientError):
    """No answer before the deadline."""


class ServerFailed(ClientError):
    """The gateway failed."""


class WaitTimeout(ClientError):
    """Waiting ended before the version was compiled."""


BY_STATUS: dict[int, type[ClientError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


def error_of(response: httpx.Response) -> ClientError:
    """The typed error of an answer that is not 2xx (its body has been read)."""
    kind = BY_STATUS.get(response.status_code, ServerFailed if response.status_code >= 500 else BadRequest)
    return kind(_text(response), response.status_code, _seconds(response.headers.get("retry-after")))


def _text(response: httpx.Response) -> str:
    try:
        return str(orjson.loads(response.content)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:200] or response.reason_phrase}"


def _seconds(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None

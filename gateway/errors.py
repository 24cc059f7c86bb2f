"""What can go wrong between a request and its answer, and the one table that turns it into a status code.

    GatewayError                 500
    ├── BadRequest               400  the request itself is wrong
    ├── AlreadyExists            400  (V2) a shared memory region of that name is there
    ├── Unauthorized             401  no key, or not one of ours
    ├── Forbidden                403  the key's scopes do not reach this
    ├── NotFound                 404  no such model, version, variant, ...
    ├── MethodNotAllowed         405
    ├── Conflict                 409  true another time
    ├── TooLarge                 413  body over the limit
    ├── ClientGone               499  nobody waits for the answer any more (never sent, only counted)
    ├── Unsupported              501  the protocol knows it, this server does not
    ├── NotReady                 503  the model (or the server) cannot answer yet
    ├── Overloaded               503  refused at the door: come again in `retry_after` seconds
    │   └── Draining             503  the server is going away
    ├── RunnerDied               503  the process that ran the batch died (`cause`: segv, oom, hang, exit)
    ├── DeadlineExceeded         504  the answer would come too late
    │   └── QueueTimeout         503  it was late before it ran at all (Triton's words and status)
    ├── LoadFailed               500  (V2) the repository has no such model, or it cannot be opened
    └── ModelFailed              500  the runtime refused to run this input

Errors carry no HTTP; `status_of` finds the status by walking the class tree, and knows the errors of `model_store`
too. The wire form is `{"error": "<text>"}` with the content type exactly `application/json` (PROTOCOL: some clients
compare the string).
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from compilers.targets import UnknownTarget
from model_store import errors as store
from model_store.policy import InvalidPolicy

APPLICATION_JSON = "application/json"


class GatewayError(Exception):
    """Root of everything the gateway raises on purpose. `reason` is a metric label: few, fixed words."""

    reason = "error"

    @property
    def headers(self) -> dict[str, str]:
        """Headers the answer must carry beside the body."""
        return {}


class BadRequest(GatewayError):
    """The request is wrong; the text says what would be right."""

    reason = "bad_request"


class AlreadyExists(GatewayError):
    """Something of that name is there. V2 makes a 400 of it, not a conflict."""

    reason = "already_exists"


class Unauthorized(GatewayError):
    """No key, or one that was never issued, is expired or revoked."""

    reason = "unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class Forbidden(GatewayError):
    """A good key whose scopes do not reach this."""

    reason = "forbidden"


class NotFound(GatewayError):
    """Nothing of that name here."""

    reason = "not_found"


class MethodNotAllowed(GatewayError):
    """A known path, another method."""

    reason = "method"


class Conflict(GatewayError):
    """Right in itself, wrong in the present state."""

    reason = "conflict"


class TooLarge(GatewayError):
    """The body is over the limit."""

    reason = "too_large"


class ClientGone(GatewayError):
    """The client left before its request was dispatched."""

    reason = "cancelled"


class Unsupported(GatewayError):
    """Part of the protocol, not of this server."""

    reason = "unsupported"

    def __init__(self, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self._headers = dict(headers or {})

    @property
    def headers(self) -> dict[str, str]:
        return self._headers


class NotReady(GatewayError):
    """The server, or this model, cannot answer yet."""

    reason = "not_ready"


class Overloaded(GatewayError):
    """Refused before it cost anything. `reason`: queue_full, deadline, rate_limit, memory, draining."""

    def __init__(self, text: str, reason: str = "queue_full", retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.reason = reason
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(max(1, round(self.retry_after)))}


class Draining(Overloaded):
    """The server is shutting down; another one should be asked."""

    def __init__(self) -> None:
        super().__init__("Server not ready: it is shutting down", reason="draining")


class RunnerDied(GatewayError):
    """The process that ran this batch died. `cause`: segv, oom, hang, exit."""

    reason = "runner_died"

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(text)
        self.cause = cause


class DeadlineExceeded(GatewayError):
    """The deadline passed before the answer was there."""

    reason = "deadline"


class QueueTimeout(DeadlineExceeded):
    """The deadline passed in the queue. Nothing was run, so it may be tried elsewhere: Triton says UNAVAILABLE."""


class LoadFailed(GatewayError):
    """A `load` of the model repository came to nothing; V2 has it as an error of the server."""

    reason = "load_failed"


class ModelFailed(GatewayError):
    """The runtime refused to run the model on this input; the text is what it said."""

    reason = "model_failed"


STATUS: dict[type[Exception], int] = {
    BadRequest: 400,
    AlreadyExists: 400,
    store.Invalid: 400,
    InvalidPolicy: 400,
    UnknownTarget: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    store.NotFound: 404,
    MethodNotAllowed: 405,
    Conflict: 409,
    store.Conflict: 409,
    TooLarge: 413,
    ClientGone: 499,
    Unsupported: 501,
    NotReady: 503,
    Overloaded: 503,
    RunnerDied: 503,
    DeadlineExceeded: 504,
    QueueTimeout: 503,
    GatewayError: 500,
}


def status_of(exc: BaseException) -> int:
    """The status code of an error: the nearest class in the table wins; anything unforeseen is a 500."""
    return next((STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS), 500)


def text_of(exc: BaseException) -> str:
    """What the client may read: words written for it, and nothing of an error nobody foresaw."""
    foreseen = any(kind in STATUS for kind in type(exc).__mro__)
    return (str(exc) or type(exc).__name__) if foreseen else "internal error"


def error_body(text: str) -> bytes:
    return orjson.dumps({"error": text})

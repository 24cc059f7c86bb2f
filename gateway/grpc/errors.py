"""The one table from errors to gRPC status codes (PROTOCOL section 5); the texts are those of REST.

A full queue is UNAVAILABLE, as Triton says it: KServe's client then tries again elsewhere, which is what shedding asks
for. RESOURCE_EXHAUSTED means one message that is too large: trying it again helps nobody.
"""

from __future__ import annotations

from compilers.targets import UnknownTarget
from gateway import errors
from gateway.errors import text_of
from gateway.grpc.status import Code
from model_store import errors as store
from model_store.policy import InvalidPolicy

CODES: dict[type[BaseException], Code] = {
    errors.BadRequest: Code.INVALID_ARGUMENT,
    errors.AlreadyExists: Code.ALREADY_EXISTS,
    store.Invalid: Code.INVALID_ARGUMENT,
    InvalidPolicy: Code.INVALID_ARGUMENT,
    UnknownTarget: Code.INVALID_ARGUMENT,
    errors.Unauthorized: Code.UNAUTHENTICATED,
    errors.Forbidden: Code.PERMISSION_DENIED,
    errors.NotFound: Code.NOT_FOUND,
    store.NotFound: Code.NOT_FOUND,
    errors.MethodNotAllowed: Code.UNIMPLEMENTED,
    errors.Conflict: Code.FAILED_PRECONDITION,
    store.Conflict: Code.FAILED_PRECONDITION,
    errors.TooLarge: Code.RESOURCE_EXHAUSTED,
    errors.ClientGone: Code.CANCELLED,
    errors.Unsupported: Code.UNIMPLEMENTED,
    errors.NotReady: Code.UNAVAILABLE,
    errors.Overloaded: Code.UNAVAILABLE,
    errors.RunnerDied: Code.UNAVAILABLE,
    errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    errors.QueueTimeout: Code.UNAVAILABLE,
    errors.GatewayError: Code.INTERNAL,
}


_MOST_TEXT = 600
"""Characters of a status text: it travels as a header, and clients take no more than 8 KiB of those."""


class Refused(Exception):
    """A call that ends with a status instead of an answer."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."


def refused(error: BaseException) -> Refused:
    """What the client is told of an error: the nearest class in the table wins; the unforeseen is INTERNAL."""
    if isinstance(error, Refused):
        return error
    code = next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), Code.INTERNAL)
    return Refused(code, text_of(error))

"""The Python client: numpy in, numpy out, V2 binary on the wire.

    from gateway.client import Client

    with Client("http://127.0.0.1:8000") as forgeway:
        job = forgeway.register("digits", "digits.onnx", samples="digits.npz")
        forgeway.wait("digits", job["version"])
        answer = forgeway.predict("digits", {"image": images})
        answer["logits"], answer.variant

Needs httpx, numpy and orjson; nothing of the server is imported.
"""

from gateway.client.awaiting import AsyncClient
from gateway.client.blocking import Client
from gateway.client.calls import Prediction
from gateway.client.errors import (
    BadRequest,
    ClientError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    ServerFailed,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
    WaitTimeout,
)
from gateway.client.events import Event
from gateway.client.retry import Retry

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Client",
    "ClientError",
    "Conflict",
    "DeadlineExceeded",
    "Event",
    "Forbidden",
    "NotFound",
    "Prediction",
    "Retry",
    "ServerFailed",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "WaitTimeout",
]

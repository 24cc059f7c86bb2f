"""The outermost layer: every HTTP request passes here first, predictions too, so it is plain ASGI and short.

It names the request (X-Request-ID is echoed, or made for calls that are not predictions), asks the keyring, logs, and
answers in our error form whatever nothing inside has answered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import Keyring
from gateway.errors import APPLICATION_JSON, GatewayError, error_body, status_of, text_of
from gateway.httpd.heads import fields_of
from gateway.logs import LOGGER, REQUEST_ID, event, new_request_id

_QUIET = ("/v2/health/", "/metrics")
"""Asked every few seconds by machines: logged only when they fail."""


class Door:
    """Wraps an ASGI application; only what `keyring` admits passes."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = fields_of(scope)
        method, path = scope["method"], scope["path"]
        hot = method == "POST" and path.endswith(("/infer", ":predict"))
        request_id = _request_id(headers.get(b"x-request-id"), hot)
        status, complete = 0, False

        def answer(message: Message) -> Awaitable[None]:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                if request_id is not None:
                    message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            else:
                complete = not message.get("more_body", False)
            return send(message)

        key_id = None
        try:
            if self._keyring.is_open:
                self._keyring.guard(method, *_host_and_origin(headers))
            else:
                key_id = await self._admit(method, path, headers)
            await self._app(scope, receive, answer)
        except Exception as exc:
            if not isinstance(exc, GatewayError):
                LOGGER.error("unforeseen error", exc_info=exc, extra={"facts": {"method": method, "path": path}})
            if status and not complete:  # the answer had begun: cutting it off is the only honest end
                raise
            if not status:
                await respond(
                    answer, status_of(exc), text_of(exc), exc.headers if isinstance(exc, GatewayError) else {}
                )
        finally:
            if status >= 500 or not (hot or path.startswith(_QUIET)):
                event(
                    logging.WARNING if status >= 500 else logging.INFO,
                    "request",
                    method=method,
                    path=path,
                    code=status,
                    dur_ms=round((time.perf_counter() - started) * 1e3, 2),
                    request_id=None if request_id is None else request_id.decode(),
                    key_id=key_id,
                )

    async def _admit(self, method: str, path: str, headers: dict[bytes, bytes]) -> str | None:
        """The id of the key that let the request in, if one was needed."""
        host, origin = _host_and_origin(headers)
        key = await self._keyring.admit(method, path, host, origin, _secret(headers))
        return None if key is None else key.id


async def respond(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    """Send `{"error": text}`."""
    body = error_body(text)
    fields = {"content-type": APPLICATION_JSON, "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _request_id(given: bytes | None, hot: bool) -> bytes | None:
    if given is not None and REQUEST_ID.fullmatch(given):
        return given
    return None if hot else new_request_id().encode()


def _host_and_origin(headers: dict[bytes, bytes]) -> tuple[str, str | None]:
    origin = headers.get(b"origin")
    return headers.get(b"host", b"").decode("latin-1"), None if origin is None else origin.decode("latin-1")


def _secret(headers: dict[bytes, bytes]) -> str | None:
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    found = value.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key")
    return found.decode("latin-1") if found else None

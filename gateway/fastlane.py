"""Predictions, as plain ASGI in front of the application: the hot path pays for no routing, no models, no middleware.

`POST /v2/models/M[/versions/V]/infer` and `POST /v1/models/M[/versions/V]:predict` are answered here; everything else
goes to the wrapped application. A version may also be an alias.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.codec import compression, v1, v2_known, v2_raw, v2_reply, v2_request
from gateway.errors import (
    APPLICATION_JSON,
    BadRequest,
    ClientGone,
    GatewayError,
    TooLarge,
    error_body,
    status_of,
    text_of,
)
from gateway.httpd.heads import fields_of
from gateway.httpd.lines import Header, Lines
from gateway.routing.ranking import VersionRoute
from gateway.serve import Call, Result, Serving, infer, observe, observe_failure

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OFF_LOOP_BYTES = 1 << 20
"""JSON bodies larger than this are decoded in a thread."""

OFF_LOOP_PACKED_BYTES = 1 << 16
"""Bodies larger than this are packed and unpacked in a thread."""

log = logging.getLogger("forgeway.request")


class Lane(NamedTuple):
    """What a prediction path names."""

    protocol: str
    model: str
    version: str | None


class Reply(NamedTuple):
    status: int
    headers: list[Header]
    chunks: list[bytes | memoryview]


class FastLane:
    """Wraps the application."""

    def __init__(self, app: App, serving: Serving) -> None:
        self._app = app
        self._serving = serving
        self._protocols = {"v2": self._v2, "v1": self._v1}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or (lane := lane_of(scope["path"])) is None:
            await self._app(scope, receive, send)
            return
        received_ns = time.monotonic_ns()
        try:
            reply = await self._protocols[lane.protocol](lane, fields_of(scope), receive, received_ns)
        except Exception as exc:
            observe_failure(self._serving, lane.model, lane.version, exc, received_ns)
            if isinstance(exc, ClientGone):
                return
            reply = _refusal(exc)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        last = len(reply.chunks) - 1
        for nth, chunk in enumerate(reply.chunks):
            await send({"type": "http.response.body", "body": chunk, "more_body": nth < last})

    async def _v2(self, lane: Lane, headers: dict[bytes, bytes], receive: Receive, received_ns: int) -> Reply:
        body = await self._body(headers, receive)
        serving = self._serving
        route = serving.table.resolve(lane.model, lane.version)
        given = headers.get(b"inference-header-content-length")
        length = None if given is None else v2_request.check_header_length(given, len(body))
        batcher = serving.batchers.get((route.name, route.version))
        if length and batcher is not None:
            known = batcher.check.known.get(body[:length])
            if known is not None and len(body) == length + known.nbytes:
                return await self._v2_again(known, route, body, length, headers, receive, received_ns)
        regions = serving.regions
        if length == 0:
            request = v2_raw.decode(body, route)
        elif (len(body) if length is None else length) > OFF_LOOP_BYTES:
            request = await asyncio.to_thread(v2_request.decode, body, length, route.name, regions)
        else:
            request = v2_request.decode(body, length, route.name, regions)
        v2_reply.check_outputs(request, route, regions)
        asked = request.timeout_s or _timeout(headers)
        pin = request.variant or _pin(headers)
        call = Call(
            route, request.inputs, request.id, asked, pin, received_ns, time.monotonic_ns(), receive, request.priority
        )
        result = await infer(serving, call)
        if length and batcher is not None:
            v2_known.learn(batcher.check, body, length, request)
        encoded = v2_reply.encode(request, result, regions)
        fields = v2_known.reply_headers(encoded.json_bytes)
        chunks, nbytes = encoded.chunks, encoded.nbytes
        if nbytes >= compression.LEAST_BYTES and (accept := headers.get(b"accept-encoding")) is not None:
            chunks, nbytes = await _packed(chunks, nbytes, accept, fields)
        fields.append((b"content-length", b"%d" % nbytes))
        return self._answered(call, result, fields, chunks)

    async def _v2_again(
        self,
        known: v2_known.Known,
        route: VersionRoute,
        body: bytes,
        at: int,
        headers: dict[bytes, bytes],
        receive: Receive,
        received_ns: int,
    ) -> Reply:
        """A request whose header, which ends at `at`, was found good before."""
        plan = known.plan
        call = Call(
            route, (), "", plan.timeout_s or _timeout(headers), plan.variant or _pin(headers), received_ns,
            time.monotonic_ns(), receive, plan.priority, known.checked(body, at),
        )  # fmt: skip
        result = await infer(self._serving, call)
        frame = known.frame(result)
        chunks = frame.around(result)
        if frame.nbytes >= compression.LEAST_BYTES and (accept := headers.get(b"accept-encoding")) is not None:
            fields = v2_known.reply_headers(frame.json_bytes)
            chunks, nbytes = await _packed(chunks, frame.nbytes, accept, fields)
            fields.append((b"content-length", b"%d" % nbytes))
            return self._answered(call, result, fields, chunks)
        timing = self._counted(call, result)
        lines = Lines((*frame.headers, (b"server-timing", timing)), frame.wire + b"server-timing: %b\r\n" % timing)
        return Reply(200, lines, chunks)

    async def _v1(self, lane: Lane, headers: dict[bytes, bytes], receive: Receive, received_ns: int) -> Reply:
        body = await self._body(headers, receive)
        route = self._serving.table.resolve(lane.model, lane.version)
        if len(body) > OFF_LOOP_BYTES:
            request = await asyncio.to_thread(v1.decode, body, route.signature)
        else:
            request = v1.decode(body, route.signature)
        pin = request.variant or _pin(headers)
        call = Call(
            route, request.inputs, None, _timeout(headers), pin, received_ns, time.monotonic_ns(), receive
        )  # fmt: skip
        result = await infer(self._serving, call)
        fields = [(b"content-type", b"application/json")]
        encoded = v1.encode(request, result)
        chunks: list[bytes | memoryview] = [encoded]
        nbytes = len(encoded)
        if nbytes >= compression.LEAST_BYTES and (accept := headers.get(b"accept-encoding")) is not None:
            chunks, nbytes = await _packed(chunks, nbytes, accept, fields)
        fields.append((b"content-length", b"%d" % nbytes))
        return self._answered(call, result, fields, chunks)

    def _answered(self, call: Call, result: Result, fields: list[Header], chunks: list[bytes | memoryview]) -> Reply:
        fields.append((b"forgeway-variant", result.answer.variant.encode()))
        fields.append((b"server-timing", self._counted(call, result)))
        return Reply(200, fields, chunks)

    def _counted(self, call: Call, result: Result) -> bytes:
        """Write down that the request was answered; its `Server-Timing`."""
        answer, ended_ns = result.answer, time.monotonic_ns()
        observe(self._serving, call, result, ended_ns)
        return b"decode;dur=%.3f, queue;dur=%.3f, input;dur=%.3f, infer;dur=%.3f, output;dur=%.3f" % (
            (call.decoded_ns - call.received_ns) / 1e6,
            (answer.sent_ns - answer.queued_ns) / 1e6,
            (answer.start_ns - answer.sent_ns) / 1e6,
            (answer.end_ns - answer.start_ns) / 1e6,
            (ended_ns - answer.end_ns) / 1e6,
        )

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, unpacked. Raises TooLarge, ClientGone. How long it may take is the server's business."""
        limit = self._serving.settings.max_body_bytes
        length = headers.get(b"content-length")
        if length is not None and int(length) > limit:
            raise TooLarge(f"the body has {int(length)} bytes; the limit is {limit} (max_body_bytes)")
        message = await receive()
        body: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if more or len(body) > limit or message["type"] == "http.disconnect":
            body = await _rest(message, receive, limit)
        encoding = headers.get(b"content-encoding")
        if encoding is None:
            return body
        if len(body) > OFF_LOOP_PACKED_BYTES:
            return await asyncio.to_thread(compression.decompress, body, encoding, limit)
        return compression.decompress(body, encoding, limit)


async def _rest(message: Message, receive: Receive, limit: int) -> bytes:
    """A body that came in several messages, of which `message` is the first one."""
    chunks, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone("the client left before its body was complete")
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than {limit} bytes (max_body_bytes)")
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()


async def _packed(
    chunks: list[bytes | memoryview], nbytes: int, accept: bytes, fields: list[Header]
) -> tuple[list[bytes | memoryview], int]:
    """The chunks compressed as the client likes best, and their size; what was done is added to `fields`."""
    encoding = compression.preferred(accept)
    if encoding is None or not compression.pays(chunks):
        return chunks, nbytes
    if nbytes > OFF_LOOP_PACKED_BYTES:
        packed = await asyncio.to_thread(compression.compress, chunks, encoding)
    else:
        packed = compression.compress(chunks, encoding)
    fields.append((b"content-encoding", encoding))
    return [packed], len(packed)


@lru_cache(2048)
def lane_of(path: str) -> Lane | None:
    """The prediction a path asks for; None when it is another path."""
    parts = path.split("/")
    if len(parts) < 4 or parts[0] or parts[2] != "models" or not parts[3]:
        return None
    if parts[1] == "v2" and parts[-1] == "infer":
        return _lane("v2", parts[3:-1])
    if parts[1] == "v1" and parts[-1].endswith(":predict"):
        return _lane("v1", [*parts[3:-1], parts[-1].removesuffix(":predict")])
    return None


def _lane(protocol: str, names: list[str]) -> Lane | None:
    match names:
        case [model] if model:
            return Lane(protocol, model, None)
        case [model, "versions", version] if model and version:
            return Lane(protocol, model, version)
    return None


def _timeout(headers: dict[bytes, bytes]) -> float | None:
    """Seconds from `X-Request-Timeout` (seconds) or `timeout-ms`. Raises BadRequest."""
    for name, scale in ((b"x-request-timeout", 1.0), (b"timeout-ms", 1e-3)):
        if (value := headers.get(name)) is not None:
            try:
                seconds = float(value) * scale
            except ValueError:
                seconds = 0.0
            if not 0 < seconds < float("inf"):
                raise BadRequest(f"header {name.decode()}: {value.decode('latin-1')[:40]!r} is no positive number")
            return seconds
    return None


def _pin(headers: dict[bytes, bytes]) -> str | None:
    """The variant a request insists on, from its `forgeway-variant` header."""
    value = headers.get(b"forgeway-variant")
    return None if value is None else value.decode("latin-1")


def _refusal(exc: Exception) -> Reply:
    status = status_of(exc)
    if not isinstance(exc, GatewayError):
        log.error("unforeseen error", exc_info=exc)
    body = error_body(text_of(exc))
    extra = exc.headers if isinstance(exc, GatewayError) else {}
    headers = [
        (b"content-type", APPLICATION_JSON.encode()),
        (b"content-length", b"%d" % len(body)),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in extra.items()),
    ]
    return Reply(status, headers, [body])

"""ModelStreamInfer: many requests on one call. Answers come in the order of the requests; errors come in-band.

Requests run side by side (so those of one stream fill batches), at most `WINDOW` at once: of a client that sends
faster no more is read, and HTTP/2 holds it back. With the metadata `triton_grpc_error: true` the first error ends the
stream with its status instead, as in Triton; a missing key always does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from gateway.errors import Draining, Unauthorized
from gateway.grpc.caller import Caller
from gateway.grpc.errors import refused
from gateway.grpc.infer import Inference, refusal
from gateway.grpc.messages import message
from gateway.grpc.wire import field

WINDOW = 64
_INFER_RESPONSE = 2 << 3 | 2

_ModelStreamInferResponse = message("ModelStreamInferResponse")
_Waiting = asyncio.Queue[asyncio.Task[bytes] | None]


class Streams:
    """Every open stream. `close` ends them once what they asked is answered."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._readers: set[asyncio.Task[None]] = set()
        self._closing = False

    def close(self) -> None:
        """Read no further request of any stream."""
        self._closing = True
        for reader in self._readers:
            reader.cancel()

    async def stream(self, requests: AsyncIterator[bytes], caller: Caller) -> AsyncIterator[bytes]:
        """The RPC ModelStreamInfer, on serialized messages. Raises Refused."""
        strict = caller.header("triton_grpc_error") == "true"
        waiting: _Waiting = asyncio.Queue(WINDOW)
        reader = asyncio.create_task(self._read(requests, waiting, caller, strict))
        self._readers.add(reader)
        if self._closing:
            reader.cancel()
        try:
            while (task := await waiting.get()) is not None:
                try:
                    yield await task
                except Exception as exc:
                    raise refusal(exc, caller) from None
            if self._closing:
                raise refused(Draining())
            await reader  # it says what was wrong with the last message
        finally:
            self._readers.discard(reader)
            reader.cancel()
            while not waiting.empty():
                if (task := waiting.get_nowait()) is not None:
                    task.cancel()

    async def _read(self, requests: AsyncIterator[bytes], waiting: _Waiting, caller: Caller, strict: bool) -> None:
        try:
            async for data in requests:
                task = asyncio.create_task(self._one(data, caller, strict))
                try:
                    await waiting.put(task)
                except asyncio.CancelledError:  # nobody will wait for it
                    task.cancel()
                    raise
        finally:
            await waiting.put(None)

    async def _one(self, data: bytes, caller: Caller, strict: bool) -> bytes:
        """A serialized ModelStreamInferResponse. Raises what ends the stream."""
        received_ns = time.monotonic_ns()
        request_id = ""
        try:
            request = await self._inference.decode(data, received_ns)
            request_id = request.id
            answer = await self._inference.run(request, caller, received_ns, in_stream=True)
            return field(_INFER_RESPONSE, len(answer)) + answer
        except Exception as exc:
            if strict or isinstance(exc, Unauthorized):
                raise
            response = _ModelStreamInferResponse(error_message=refusal(exc, caller).text)
            response.infer_response.id = request_id
            serialized: bytes = response.SerializeToString()
            return serialized

"""The multipart body of a registration: streamed from disk, counted as it goes."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import numpy as np
import orjson

Source = str | os.PathLike[str] | bytes
Progress = Callable[[int, int], None]
"""Called with (bytes sent, bytes in all)."""

_CHUNK = 1 << 18


class Upload(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A multipart/form-data body. Made anew for every try; closes the files it opened."""

    def __init__(
        self,
        model: Source,
        samples: Source | Mapping[str, Any] | None,
        policy: Mapping[str, Any] | None,
        progress: Progress | None,
    ) -> None:
        self._boundary = os.urandom(16).hex()
        self._progress = progress
        self._pieces: list[tuple[bytes, BinaryIO, int]] = [self._part("model", "application/octet-stream", model)]
        if samples is not None:
            source = _npz(samples) if isinstance(samples, Mapping) else samples
            self._pieces.append(self._part("samples", "application/octet-stream", source))
        if policy is not None:
            self._pieces.append(self._part("policy", "application/json", orjson.dumps(policy)))
        self._end = f"--{self._boundary}--\r\n".encode()
        self._length = sum(len(head) + size + 2 for head, _, size in self._pieces) + len(self._end)

    @property
    def headers(self) -> dict[str, str]:
        return {
            "content-type": f"multipart/form-data; boundary={self._boundary}",
            "content-length": str(self._length),
        }

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for chunk in self._chunks():
            yield chunk
            sent += len(chunk)
            if self._progress is not None:
                self._progress(sent, self._length)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        for _, file, _ in self._pieces:
            file.close()

    async def aclose(self) -> None:
        self.close()

    def _chunks(self) -> Iterator[bytes]:
        for head, file, size in self._pieces:
            yield head
            left = size
            while left and (chunk := file.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
            yield b"\r\n"
        yield self._end

    def _part(self, name: str, content_type: str, source: Source) -> tuple[bytes, BinaryIO, int]:
        head = (
            f"--{self._boundary}\r\n"
            f'Content-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        ).encode()
        if isinstance(source, bytes):
            return head, io.BytesIO(source), len(source)
        path = Path(source)
        return head, path.open("rb"), path.stat().st_size


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    named: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez(buffer, **named)
    return buffer.getvalue()

"""Uploads go to disk as they arrive, bounded, and leave no trace when they do not arrive whole.

A request body is either the model itself or multipart/form-data with the parts `model`, `samples` and `policy`. It
is never held in memory: chunks are gathered to `_BATCH` and then parsed and written in a thread, so that neither a
slow disk nor a large upload holds up the event loop. The policy is JSON of a few hundred bytes and has a small cap.

Each upload lies in a folder of its own that is deleted when the request ends, however it ends. A folder left over by
a process that was killed is known by its lock being free, and is swept when a gateway starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.requests import ClientDisconnect, Request

from gateway.errors import BadRequest, GatewayError, TooLarge

_BATCH = 1 << 20
POLICY_BYTES = 64 * 1024
PARTS = ("model", "samples", "policy")
_LONGEST_TYPE, _LONGEST_BOUNDARY = 1000, 200
"""Characters. What reads parameters of a header takes time that grows with the square of its length."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What arrived: the model's file, perhaps samples, perhaps a policy (JSON object, not yet validated)."""

    model: Path
    samples: Path | None
    policy: Mapping[str, Any] | None


@contextlib.asynccontextmanager
async def receive_upload(request: Request, folder: Path, max_bytes: int) -> AsyncIterator[Upload]:
    """Stream the body of `request` to disk. Raises BadRequest, TooLarge, or ClientDisconnect (nothing is kept)."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    with _private_folder(folder) as own:
        sink = _sink(request.headers.get("content-type", ""), own)
        try:
            await _drain(request, sink, max_bytes)
            yield await asyncio.to_thread(sink.finish)
        finally:
            sink.close()


def sweep(folder: Path) -> None:
    """Delete what killed processes left behind: folders whose lock nobody holds."""
    for left in folder.glob("upload-*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def _private_folder(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix="upload-", dir=folder))
    descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        os.close(descriptor)


async def _drain(request: Request, sink: _Raw | _Multipart, max_bytes: int) -> None:
    received = 0
    batch = bytearray()
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > max_bytes:
                raise _too_large(max_bytes)
            batch += chunk
            if len(batch) >= _BATCH:
                full, batch = bytes(batch), bytearray()
                await asyncio.to_thread(sink.feed, full)
        if batch:
            await asyncio.to_thread(sink.feed, bytes(batch))
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GatewayError("the disk of this gateway is full: nothing was kept") from exc
        raise
    except ClientDisconnect:
        raise BadRequest("the upload was cut off: send it again, whole") from None


class _Raw:
    """The body is the model."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "model"
        self._file = self._path.open("wb")

    def feed(self, data: bytes) -> None:
        self._file.write(data)

    def finish(self) -> Upload:
        self._file.close()
        _need_bytes(self._path, "the body is empty: send the ONNX file as the body, or as multipart part `model`")
        return Upload(self._path, None, None)

    def close(self) -> None:
        self._file.close()


class _Multipart:
    """The body is multipart/form-data; each part goes to a file of its own name in the upload's folder."""

    def __init__(self, folder: Path, boundary: str) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._file: BinaryIO | None = None
        self._header = [b"", b""]
        self._headers: dict[bytes, bytes] = {}
        self._part = ""
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._open_part,
                "on_part_data": self._data,
                "on_part_end": self.close,
                "on_end": self._end,
            },
            max_header_count=16,
            max_header_size=4096,
        )

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise BadRequest(f"the multipart body cannot be read: {exc}") from None

    def finish(self) -> Upload:
        self.close()
        if not self._ended:
            raise BadRequest("the multipart body ends before its last boundary: send it again, whole")
        if "model" not in self._files:
            raise BadRequest("there is no part named `model`: it must hold the ONNX file")
        _need_bytes(self._files["model"], "the part `model` is empty: it must hold the ONNX file")
        return Upload(self._files["model"], self._files.get("samples"), self._policy())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _policy(self) -> Mapping[str, Any] | None:
        if "policy" not in self._files or not (text := self._files["policy"].read_bytes()).strip():
            return None
        try:
            policy = orjson.loads(text)
        except orjson.JSONDecodeError as exc:
            raise BadRequest(f"the part `policy` is not JSON: {exc}") from None
        if not isinstance(policy, dict):
            raise BadRequest('the part `policy` must be a JSON object, such as {"objective": "latency"}')
        return policy

    def _part_begin(self) -> None:
        self._header, self._headers = [b"", b""], {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header[0].lower()] = self._header[1]
        self._header = [b"", b""]

    def _open_part(self) -> None:
        disposition = Message()
        disposition["content-disposition"] = self._headers.get(b"content-disposition", b"").decode("utf-8", "replace")
        name = str(disposition.get_param("name", "", header="content-disposition"))
        if name not in PARTS:
            close = difflib.get_close_matches(name, PARTS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"parts are {', '.join(PARTS)}"
            raise BadRequest(f"there is no part named {name[:80]!r}; {hint}")
        if name in self._files:
            raise BadRequest(f"the part {name!r} comes twice")
        self._part = name
        self._files[name] = self._folder / name
        self._file = self._files[name].open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._file.write(memoryview(data)[start:end])
        if self._part == "policy" and self._file.tell() > POLICY_BYTES:
            raise TooLarge(f"the part `policy` is larger than {POLICY_BYTES} bytes")

    def _end(self) -> None:
        self._ended = True


def _sink(content_type: str, folder: Path) -> _Raw | _Multipart:
    header = Message()
    header["content-type"] = content_type
    if header.get_content_type() != "multipart/form-data":
        return _Raw(folder)
    boundary = header.get_param("boundary") if len(content_type) <= _LONGEST_TYPE else None
    if not isinstance(boundary, str) or not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise BadRequest(
            "the Content-Type multipart/form-data names no usable boundary: it needs one of 1 to "
            f"{_LONGEST_BOUNDARY} characters, in a header of at most {_LONGEST_TYPE}"
        )
    return _Multipart(folder, boundary)


def _need_bytes(path: Path, otherwise: str) -> None:
    if path.stat().st_size == 0:
        raise BadRequest(otherwise)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the upload is larger than {max_bytes} bytes, the limit of this gateway (max_upload_bytes)")

"""Uploads: whole on disk or not at all, whatever the chunks look like."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from gateway.errors import BadRequest, TooLarge
from gateway.uploads import POLICY_BYTES, receive_upload, sweep

BOUNDARY = "frontier"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="f"\r\n\r\n%b\r\n'
        % (BOUNDARY.encode(), name.encode(), data)
        for name, data in parts
    )
    return body + b"--%b--\r\n" % BOUNDARY.encode()


def request_of(chunks: Iterable[bytes], content_type: str, gone: bool = False, length: int | None = None) -> Request:
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})
    headers = [(b"content-type", content_type.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))

    async def receive() -> Message:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}, receive)


def upload(folder: Path, request: Request, limit: int = 1 << 24) -> dict[str, object]:
    """What arrived, read while it is there."""

    async def walk() -> dict[str, object]:
        async with receive_upload(request, folder, limit) as found:
            samples = None if found.samples is None else found.samples.read_bytes()
            return {"model": found.model.read_bytes(), "samples": samples, "policy": found.policy}

    return asyncio.run(walk())


def test_a_raw_body_is_the_model(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    chunks = [data[at : at + 70_000] for at in range(0, len(data), 70_000)]
    assert upload(tmp_path, request_of(chunks, "application/octet-stream"))["model"] == data
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_parts_arrive_whole_however_they_are_cut(tmp_path: Path, step: int) -> None:
    model = (b"\r\n--front" + os.urandom(50)) * (40 if step < 10 else 40_000)
    body = form(("policy", b'{"objective": "size"}'), ("model", model), ("samples", b"\r\n\r"))
    chunks = [body[at : at + step] for at in range(0, len(body), step)]
    found = upload(tmp_path, request_of(chunks, MULTIPART))
    assert found == {"model": model, "samples": b"\r\n\r", "policy": {"objective": "size"}}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form(("modle", b"x")), "did you mean 'model'"),
        (form(("../../etc/passwd", b"x")), "parts are model, samples, policy"),
        (form(("samples", b"x")), "no part named `model`"),
        (form(("model", b"")), "`model` is empty"),
        (form(("model", b"x"), ("model", b"y")), "comes twice"),
        (form(("model", b"x"), ("policy", b"{")), "not JSON"),
        (form(("model", b"x"), ("policy", b"[]")), "must be a JSON object"),
        (form(("model", b"x"))[:-10], "ends before its last boundary"),
        (b"no boundary at all", "cannot be read"),
        (b"", "ends before its last boundary"),
    ],
)
def test_a_bad_form_is_refused_in_words_and_leaves_nothing(tmp_path: Path, body: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        upload(tmp_path, request_of([body], MULTIPART))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_body_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="empty"):
        upload(tmp_path, request_of([], "application/octet-stream"))


@pytest.mark.parametrize("parameters", ["", '; boundary=""', f"; boundary={'x' * 201}", "; boundary=x" + ";" * 2000])
def test_multipart_without_a_boundary_of_sensible_length_is_refused(tmp_path: Path, parameters: str) -> None:
    with pytest.raises(BadRequest, match="needs one of 1 to 200 characters, in a header of at most 1000"):
        upload(tmp_path, request_of([b"x"], f"multipart/form-data{parameters}"))


def test_too_many_bytes_are_refused_before_they_are_all_there(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="larger than 1000 bytes"):
        upload(tmp_path, request_of([b"x" * 600] * 2, "application/octet-stream"), limit=1000)
    with pytest.raises(TooLarge):
        upload(tmp_path, request_of([], "application/octet-stream", length=1001), limit=1000)
    with pytest.raises(TooLarge, match="policy"):
        upload(tmp_path, request_of([form(("policy", b" " * (POLICY_BYTES + 1)))], MULTIPART))
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cut off"):
        upload(tmp_path, request_of([b"x" * 100], "application/octet-stream", gone=True))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_running_uploads_are_not(tmp_path: Path) -> None:
    (tmp_path / "upload-left").mkdir()
    (tmp_path / "upload-left" / "model").write_bytes(b"x")

    async def walk() -> bytes:
        async with receive_upload(request_of([b"abc"], "application/octet-stream"), tmp_path, 1000) as found:
            sweep(tmp_path)
            return found.model.read_bytes()

    assert asyncio.run(walk()) == b"abc"
    assert list(tmp_path.iterdir()) == []

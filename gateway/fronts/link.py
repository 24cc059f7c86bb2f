"""The line between the primary and a front: questions and answers, descriptors with them, in order.

A SEQPACKET socket pair, handed down at exec, so nobody else can speak on it. A message is JSON; one too long for a
datagram travels in a memfd of its own. Both ends ask: `tell` wants no answer, `ask` returns what the other end's verb
of that name returns, or raises what it raised.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from gateway import errors
from gateway.errors import GatewayError

Verb = Callable[..., Any]
"""Called with the message's arguments by name, and with `fds` (descriptors, its own from now on) if there were any. May
return an awaitable. Verbs begin in the order of their messages."""

ANSWER_S = 2.5
_MOST_INLINE = 32 << 10
_MOST_FDS = 4
log = logging.getLogger("forgeway.fronts")


class LinkDown(Exception):
    """The other process has gone, or did not answer in time."""


class _Message(msgspec.Struct, array_like=True, omit_defaults=True):
    number: int = 0
    """Of the question; answers carry it negative; 0: no answer is wanted."""
    verb: str = ""
    content: dict[str, Any] = {}
    """Arguments by name; of an answer `value`, or `error` (the name of a GatewayError) and `text`."""
    bulky: bool = False
    """The message itself lies in the first descriptor."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Message).decode


class Link:
    """One end. Messages can be sent at once; those of the other end are heard after `listen`."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._verbs: Mapping[str, Verb] = {}
        self._on_end: Callable[[], None] = _nothing
        self._doing: set[asyncio.Task[None]] = set()
        self.down = False

    def listen(self, verbs: Mapping[str, Verb], on_end: Callable[[], None]) -> None:
        """Hear the other end; `on_end` is called once, when it has gone."""
        self._verbs, self._on_end = verbs, on_end
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def tell(self, verb: str, fds: Sequence[int] = (), **content: Any) -> None:
        """Say something. The descriptors stay the caller's. Silent when the other end has gone."""
        self._send(_Message(0, verb, content), fds)

    async def ask(self, verb: str, fds: Sequence[int] = (), answer_s: float = ANSWER_S, **content: Any) -> Any:
        """The answer of the other end. Raises LinkDown, and whatever GatewayError the verb raises there."""
        if self.down:
            raise LinkDown(f"{verb}: the other process has gone")
        number = next(self._numbers)
        answer = self._asked[number] = self._loop.create_future()
        self._send(_Message(number, verb, content), fds)
        try:
            return await asyncio.wait_for(answer, answer_s)
        except TimeoutError:
            raise LinkDown(f"{verb}: no answer within {answer_s:g} s") from None
        finally:
            del self._asked[number]

    def close(self) -> None:
        """Hang up. Who waits for an answer gets LinkDown."""
        if self.down:
            return
        self.down = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, fds in self._outbox:
            _close_all(fds)
        self._outbox.clear()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(LinkDown("the other process has gone"))

    def _send(self, message: _Message, fds: Sequence[int]) -> None:
        if self.down:
            return
        data, own = _encode(message), [os.dup(fd) for fd in fds]
        if len(data) > _MOST_INLINE:
            own.insert(0, _in_memory(data))
            data = _encode(_Message(bulky=True))
        self._outbox.append((data, own))
        if len(self._outbox) == 1:
            self._loop.add_writer(self._socket.fileno(), self._writable)
            self._writable()

    def _writable(self) -> None:
        try:
            while self._outbox:
                data, fds = self._outbox[0]
                socket.send_fds(self._socket, [data], fds)
                self._outbox.popleft()
                _close_all(fds)
        except BlockingIOError:
            return
        except OSError:  # it has gone: whoever reads will find that out
            for _, fds in self._outbox:
                _close_all(fds)
            self._outbox.clear()
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            received = _receive(self._socket)
        except BlockingIOError:
            return
        if received is None:
            self.close()
            self._on_end()
            return
        message, fds = received
        if message.number < 0:
            self._answered(-message.number, message.content)
        else:
            self._do(message, fds)

    def _answered(self, number: int, content: dict[str, Any]) -> None:
        answer = self._asked.get(number)
        if answer is None or answer.done():  # who asked waits no longer
            return
        if "error" in content:
            kind = getattr(errors, content["error"], GatewayError)
            answer.set_exception(kind(content["text"]))
        else:
            answer.set_result(content.get("value"))

    def _do(self, message: _Message, fds: list[int]) -> None:
        given = {"fds": fds} if fds else {}
        try:
            value = self._verbs[message.verb](**message.content, **given)
        except Exception as exc:
            self._refuse(message, exc)
            return
        if inspect.isawaitable(value):
            task = asyncio.ensure_future(self._finish(message, value))
            self._doing.add(task)
            task.add_done_callback(self._doing.discard)
        elif message.number:
            self._send(_Message(-message.number, "", {"value": value}), ())

    async def _finish(self, message: _Message, value: Any) -> None:
        try:
            answer = await value
        except Exception as exc:
            self._refuse(message, exc)
            return
        if message.number:
            self._send(_Message(-message.number, "", {"value": answer}), ())

    def _refuse(self, message: _Message, exc: Exception) -> None:
        expected = isinstance(exc, GatewayError)
        if not expected or not message.number:
            log.error("verb %s failed", message.verb, exc_info=exc)
        if message.number:
            kind = type(exc).__name__ if expected else GatewayError.__name__
            self._send(_Message(-message.number, "", {"error": kind, "text": str(exc)}), ())


def first_message(end: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Wait for the other end's first word, before there is a Link; what it says, and its descriptors."""
    received = _receive(end)
    if received is None:
        raise LinkDown("the other process has gone before it said anything")
    return received[0].content, received[1]


def _receive(end: socket.socket) -> tuple[_Message, list[int]] | None:
    """The next message and its descriptors; None when the other end has gone. Raises BlockingIOError."""
    try:
        data, fds, _, _ = socket.recv_fds(end, 2 * _MOST_INLINE, _MOST_FDS)
    except ConnectionError:
        return None
    if not data:
        return None
    for fd in fds:
        os.set_inheritable(fd, False)
    message = _decode(data)
    return (_decode(_from_memory(fds.pop(0))) if message.bulky else message), fds


def _in_memory(data: bytes) -> int:
    fd = os.memfd_create("forgeway-message", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    return fd


def _from_memory(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _nothing() -> None:
    """Nobody listens."""

"""A long body on its way in, read by the transport to where it stays.

Piece by piece every byte is copied four times: out of the socket, out of the read buffer, through the parser and into
the whole. Here it is copied once. It is done where nothing has to be parsed (heads.py) and the length is known.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import Protocol

_bytes_of = ctypes.pythonapi.PyBytes_FromStringAndSize
_bytes_of.argtypes, _bytes_of.restype = (ctypes.c_void_p, ctypes.c_ssize_t), ctypes.py_object
_HEADER = bytes.__basicsize__ - 1
"""Where the content of a bytes object begins; one byte, the zero behind it, is counted in its basic size."""


class Receiver(Protocol):
    """The connection (connection.py) whose transport is lent."""

    received: int

    def body_arrived(self, body: bytes) -> None:
        """All of it is there; from now on the transport is the receiver's again."""
        ...

    def connection_lost(self, exc: Exception | None, /) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Arriving(asyncio.BufferedProtocol):
    """Takes a transport over until `length` bytes are there, of which `begun` came with the head."""

    def __init__(self, receiver: Receiver, length: int, begun: memoryview) -> None:
        self._receiver = receiver
        self._body, self._room = blank(length)
        self._room[: len(begun)] = begun
        self._room = self._room[len(begun) :]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self._receiver.received += nbytes
        self._room = self._room[nbytes:]
        if not self._room:
            self._receiver.body_arrived(self._body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.connection_lost(exc)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()


def blank(length: int) -> tuple[bytes, memoryview]:
    """Bytes yet to be written, and the memory to write them to: what the C interface offers for just this.

    "If v is NULL, the contents of the bytes object are uninitialized" (Python/C API, PyBytes_FromStringAndSize). They
    must not be read before they are written, and not be written once anybody has read them.
    """
    made: bytes = _bytes_of(None, length)
    room = (ctypes.c_char * length).from_address(id(made) + _HEADER)
    return made, memoryview(room).cast("B")

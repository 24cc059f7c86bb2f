"""Header blocks: decoded and checked once for each block that comes again.

Clients send the same headers with every call, and their compressed form refers to a table that both sides keep. As
long as a block leaves that table as it found it, the same bytes mean the same headers; so they are remembered until
the table changes.
"""

from __future__ import annotations

from typing import Any

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from gateway.http2 import limits
from gateway.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, PROTOCOL_ERROR, ConnectionFailed, StreamFailed

Field = tuple[bytes, bytes]

_MOST_KNOWN, _KNOWN_BELOW = 64, 1024
_PER_FIELD = 32  # RFC 9113, 6.5.2
_MOST_DIGITS = 18
"""Of a content-length: more bytes than that nobody sends, and Python refuses to read very long numbers."""
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_NEEDED = frozenset((b":method", b":scheme", b":path"))
_OF_CONNECTIONS = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_IN_NAMES = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_NOT_IN_VALUES = frozenset(b"\0\r\n")


class Headers:
    """The headers of a stream, shared by all streams whose block is the same."""

    __slots__ = ("fields", "flaw", "length", "meaning", "nbytes")

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields
        self.nbytes = sum(len(name) + len(value) + _PER_FIELD for name, value in fields)
        """To be held against HEADER_BYTES by whoever can say so in the words of its protocol."""
        self.flaw = _flaw(fields)
        """Why no request can have such headers (RFC 9113, 8.2 and 8.3); empty when it can."""
        given = next((value for name, value in fields if name == b"content-length"), None)
        self.length = int(given) if given is not None and _is_length(given) else None
        self.meaning: Any = None
        """What the application made of them."""

    def check(self) -> None:
        """Raises StreamFailed for what is no request."""
        if self.flaw:
            raise StreamFailed(PROTOCOL_ERROR, self.flaw)


class HeaderReader:
    """Decodes the blocks of one connection, which must all be given, in their order."""

    def __init__(self) -> None:
        self._decoder = Decoder(limits.MOST_HEADER_BYTES)
        self._table = self._decoder.header_table
        self._known: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """Raises ConnectionFailed: what follows a block that cannot be decoded cannot be decoded either."""
        known = self._known.get(block)
        if known is not None:
            return known
        size, count, front = self._state()
        try:
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            text = f"a list of headers of more than {limits.MOST_HEADER_BYTES} bytes"
            raise ConnectionFailed(ENHANCE_YOUR_CALM, text) from None
        except (HPACKError, IndexError) as exc:
            raise ConnectionFailed(COMPRESSION_ERROR, f"headers cannot be decompressed: {exc}") from None
        headers = Headers(tuple((name, value) for name, value in fields))
        now_size, now_count, now_front = self._state()
        if (now_size, now_count) != (size, count) or now_front is not front:
            self._known.clear()
        elif len(block) <= _KNOWN_BELOW:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[block] = headers
        return headers

    def _state(self) -> tuple[int, int, object]:
        """Differs whenever the table differs: entries are added in front and leave at the back. The entry in front is
        compared by identity; whoever holds the state keeps it alive, so none that comes later can have its own."""
        entries = self._table.dynamic_entries
        return self._table.maxsize, len(entries), entries[0] if entries else None


def encode(*fields: Field) -> bytes:
    """A block that touches no table, so it may be made once and sent on every connection."""
    encoded: bytes = Encoder().encode([(name, value, True) for name, value in fields], huffman=False)
    return encoded


def no_table() -> bytes:
    """What stands before the first block of a connection: that we keep no table, whatever the peer would allow."""
    encoder = Encoder()
    encoder.header_table_size = 0
    encoded: bytes = encoder.encode([])
    return encoded


def _flaw(fields: tuple[Field, ...]) -> str:
    seen: set[bytes] = set()
    regular = False
    for name, value in fields:
        if name[:1] == b":":
            if regular:
                return "a pseudo-header behind other headers"
            if name not in _PSEUDO:
                return f"the pseudo-header {_shown(name)} is none of a request"
            if name in seen:
                return f"{_shown(name)} twice"
            seen.add(name)
        else:
            regular = True
            if not name or not _IN_NAMES.issuperset(name):
                return f"{_shown(name)} is no name of a header"
            if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
                return f"{_shown(name)} does not exist in HTTP/2"
            if name == b"content-length" and not _is_length(value):
                return "a content-length that is no number"
        if not _NOT_IN_VALUES.isdisjoint(value) or value[:1] in (b" ", b"\t") or value[-1:] in (b" ", b"\t"):
            return f"the value of {_shown(name)} has bytes that no value may have"
    if not seen >= _NEEDED or not dict(fields)[b":path"]:
        return "a request without :method, :scheme or :path"
    return ""


def _is_length(value: bytes) -> bool:
    return value.isdigit() and len(value) <= _MOST_DIGITS


def _shown(name: bytes) -> str:
    return repr(name[:40].decode("latin-1"))

"""Header lines: pairs of name and value, and how they look on the wire."""

from __future__ import annotations

import re
from collections.abc import Iterable

Header = tuple[bytes, bytes]

_NO_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Lines(list[Header]):
    """Headers that are known to be well-formed, and beside them how they look on the wire."""

    __slots__ = ("wire",)

    def __init__(self, headers: Iterable[Header], wire: bytes = b"") -> None:
        """`wire`: their lines, when somebody has them; they are made of `headers` and checked otherwise."""
        super().__init__(headers)
        self.wire = wire or rendered(self)


def rendered(headers: Iterable[Header]) -> bytes:
    """The lines of headers. Raises RuntimeError for what would be more than they say."""
    parts: list[bytes] = []
    for name, value in headers:
        if _NO_NAME.search(name) or _NO_VALUE.search(value):
            raise RuntimeError("invalid HTTP header")
        parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)

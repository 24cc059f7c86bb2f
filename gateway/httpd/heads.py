"""Request heads that come again and again, byte for byte, as clients of predictions send them: each is parsed once.

What the parser makes of a whole head at the start of a message follows from its bytes alone. So what it made of them is
remembered, and the next message that begins with the same bytes needs no parser. Only predictions are remembered: other
heads rarely come twice, and what is kept of one is shared by all requests that have it.
"""

from __future__ import annotations

from typing import Any

END = b"\r\n\r\n"
MOST_BYTES = 2048
"""Longer heads are parsed each time."""

FIELDS = "forgeway.fields"
"""In a scope: the headers by name (the last of several), where somebody has made them already."""

_MOST = 1024


LONG_BYTES = 1 << 16
"""Bodies as long as this seldom arrive with their head."""


class Head:
    """`scope`: what ASGI is told of the request, but for its connection. `length`: bytes of the body.

    `keep_alive`: whether another request may follow. `welcome`: a request with it was answered with 200, so whoever
    sends it may, and the body is not too long.
    """

    __slots__ = ("keep_alive", "length", "scope", "welcome")

    def __init__(self, scope: dict[str, Any], length: int, keep_alive: bool) -> None:
        self.scope = scope
        self.length = length
        self.keep_alive = keep_alive
        self.welcome = False


class Heads:
    """A bounded memory. When it is full it begins anew: what comes again is soon there again."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self.get = self._known.get

    def learn(self, head: bytes, scope: dict[str, Any], keep_alive: bool) -> Head | None:
        """Remember what the parser made of `head`, if it is the plain head of a prediction with a body of known size.

        `scope` is a request's: what belongs to its connection is left out.
        """
        if (known := self._known.get(head)) is not None:
            return known
        if len(head) > MOST_BYTES or scope["method"] != "POST" or not scope["path"].endswith(("/infer", ":predict")):
            return None
        fields = dict(scope["headers"])
        length = fields.get(b"content-length", b"")
        if not length.isdigit() or scope["http_version"] != "1.1" or not fields.keys().isdisjoint(_UNUSUAL):
            return None
        if len(self._known) >= _MOST:
            self._known.clear()
        template = {key: value for key, value in scope.items() if key not in ("server", "client", "state")}
        found = self._known[head] = Head({**template, FIELDS: fields}, int(length), keep_alive)
        return found


_UNUSUAL = frozenset((b"expect", b"transfer-encoding", b"upgrade"))


def fields_of(scope: Any) -> dict[bytes, bytes]:
    """The headers of a request by name; not to be changed."""
    known: dict[bytes, bytes] | None = scope.get(FIELDS)
    return dict(scope["headers"]) if known is None else known

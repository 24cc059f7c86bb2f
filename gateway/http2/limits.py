"""What a peer can make us hold or do, and why that much."""

from __future__ import annotations

from gateway.http2.frames import ENHANCE_YOUR_CALM, ConnectionFailed

MAX_STREAMS = 1024
"""Streams under way on one connection: more than any client of ours has; each may cost a task."""

STREAM_WINDOW = 4 << 20
"""Bytes a stream may send ahead of who takes them: a large tensor is never slowed down on a fast network."""

CONNECTION_WINDOW = 64 << 20
"""The same for all streams of a connection: what one client can make us hold that nobody has taken yet."""

HEADER_BYTES = 64 << 10
"""Of the headers of one request, as RFC 9113 (6.5.2) counts them: keys and trace contexts are far smaller."""

MOST_HEADER_BYTES = 4 * HEADER_BYTES
"""Beyond it headers are not even decoded to be refused politely (HPACK bombs)."""

MOST_CONTINUATIONS = 16
"""Frames of one header block, enough for MOST_HEADER_BYTES (CONTINUATION floods)."""

MOST_UNSENT = 256 << 20
"""Bytes of answers that wait for a client to read; beyond it, its new streams are refused until it has read."""

WRITE_AHEAD = 256 << 10
"""Bytes handed to the socket before it has taken them; everything else waits in its stream."""

MOST_CONTROL = 1 << 20
"""Bytes of control frames (answers to pings, ends of streams) that wait for a socket nobody reads from."""

LEAST_BYTES = 16 << 10
"""What must arrive, or be read, within the time limit; slower peers only hold our memory."""

_MOST_FAVOURS, _FAVOURS_A_SECOND = 2_000, 400


class Patience:
    """How much more a peer may ask of us for nothing.

    Frames that cost it little and us something (resets, settings, pings, empty data, window updates) each take one
    favour; answers it takes and time give favours back. Whoever uses its connection never runs out of them; floods
    do, and withdrawn streams (CVE-2023-44487) like all others.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _MOST_FAVOURS

    def spend(self, what: str) -> None:
        """Raises ConnectionFailed when there is none left."""
        self._left -= 1
        if self._left < 0:
            raise ConnectionFailed(ENHANCE_YOUR_CALM, f"too many frames that ask for nothing; the last one: {what}")

    def regain(self, count: int) -> None:
        self._left = min(_MOST_FAVOURS, self._left + count)

    def second(self) -> None:
        """A second has passed."""
        self.regain(_FAVOURS_A_SECOND)

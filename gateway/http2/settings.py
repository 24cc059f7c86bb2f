"""The settings of the peer (RFC 9113, 6.5), as far as they change what we send."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from gateway.http2 import frames
from gateway.http2.frames import ConnectionFailed
from gateway.http2.outbox import Outbox
from gateway.http2.stream import Stream


def apply(payload: bytes, outbox: Outbox, streams: Iterable[Stream]) -> None:
    """Raises ConnectionFailed. The size of header tables needs no change: our blocks use none."""
    if len(payload) % 6:
        raise ConnectionFailed(frames.FRAME_SIZE_ERROR, "settings have 6 bytes each")
    for key, value in struct.iter_unpack(">HI", payload):
        if key == frames.INITIAL_WINDOW:
            if value > frames.MAX_WINDOW:
                raise ConnectionFailed(frames.FLOW_CONTROL_ERROR, f"an initial window of {value} bytes")
            change, outbox.first_window = value - outbox.first_window, value
            for stream in list(streams):
                if not outbox.grow_stream(stream, change):
                    raise ConnectionFailed(frames.FLOW_CONTROL_ERROR, f"stream {stream.number}: beyond 2^31-1")
        elif key == frames.MAX_FRAME_SIZE:
            if not frames.MAX_FRAME <= value <= frames.LARGEST_FRAME:
                raise ConnectionFailed(frames.PROTOCOL_ERROR, f"frames of at most {value} bytes")
            outbox.max_frame = value
        elif key == frames.ENABLE_PUSH and value > 1:
            raise ConnectionFailed(frames.PROTOCOL_ERROR, f"ENABLE_PUSH is 0 or 1, not {value}")

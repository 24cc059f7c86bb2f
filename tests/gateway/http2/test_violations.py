"""What peers do wrong, or to do harm: a connection or a stream ends, with the code of RFC 9113; the rest goes on."""

from __future__ import annotations

import json
import struct

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gateway.http2 import limits
from gateway.http2.frames import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
)
from tests.gateway.http2.serving import ECHO, HOLD, PREFACE, bare, connected, run, serving, until


def block(fields=ECHO) -> bytes:
    return Encoder().encode(fields)


def opened(stream=1, fields=HOLD, *flags) -> bytes:
    return HeadersFrame(stream, block(fields), flags=["END_HEADERS", *flags]).serialize()


def bomb() -> bytes:
    """A header of 4,000 bytes, put into the table once and named two hundred times."""
    encoder = Encoder()
    fields = [*ECHO, ("x", "a" * 4000)]
    return bare(HEADERS, 4, 1, encoder.encode(fields)) + bare(
        HEADERS, 4, 3, encoder.encode([*ECHO, *[fields[-1]] * 200])
    )


OF_CONNECTIONS = {
    "data on an idle stream": (bare(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    "data on stream 0": (bare(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "headers on an even stream": (bare(HEADERS, 4, 2, block()), PROTOCOL_ERROR),
    "headers on stream 0": (bare(HEADERS, 4, 0, block()), PROTOCOL_ERROR),
    "headers on an ended stream": (opened(5) + opened(3), STREAM_CLOSED),
    "a frame that is too large": (bare(DATA, 0, 1, bytes(16385)), FRAME_SIZE_ERROR),
    "a short ping": (bare(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "a ping of a stream": (bare(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "settings of five bytes": (bare(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (bare(SETTINGS, 1, 0, bytes(6)), FRAME_SIZE_ERROR),
    "settings of a stream": (bare(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "an initial window beyond limits": (bare(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)), FLOW_CONTROL_ERROR),
    "frames of one byte": (bare(SETTINGS, 0, 0, struct.pack(">HI", 5, 1)), PROTOCOL_ERROR),
    "pushes of two": (bare(SETTINGS, 0, 0, struct.pack(">HI", 2, 2)), PROTOCOL_ERROR),
    "a short window update": (bare(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "a window update by nothing": (bare(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL_ERROR),
    "a window beyond limits": (bare(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), FLOW_CONTROL_ERROR),
    "a window update of an idle stream": (bare(WINDOW_UPDATE, 0, 7, b"\0\0\0\1"), PROTOCOL_ERROR),
    "settings that lift a stream's window beyond limits": (
        opened() + bare(WINDOW_UPDATE, 0, 1, b"\x7f\xff\x00\x00") + bare(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**30)),
        FLOW_CONTROL_ERROR,
    ),
    "a reset of an idle stream": (bare(RST_STREAM, 0, 1, bytes(4)), PROTOCOL_ERROR),
    "a short reset": (opened() + bare(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "a short goodbye": (bare(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "a goodbye of a stream": (bare(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "a continuation of nothing": (bare(CONTINUATION, 4, 1, block()), PROTOCOL_ERROR),
    "a header block interrupted": (bare(HEADERS, 0, 1, block()) + bare(PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
    "a header block gone on elsewhere": (bare(HEADERS, 0, 1, block()) + bare(CONTINUATION, 4, 3), PROTOCOL_ERROR),
    "a push": (bare(PUSH_PROMISE, 4, 1, bytes(4)), PROTOCOL_ERROR),
    "a priority of no stream": (bare(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    "headers of no entry": (bare(HEADERS, 4, 1, b"\x80"), COMPRESSION_ERROR),
    "headers beyond the table": (bare(HEADERS, 4, 1, b"\xff\x80\x01"), COMPRESSION_ERROR),
    "headers cut off": (bare(HEADERS, 4, 1, b"\x40\x0a"), COMPRESSION_ERROR),
    "a table beyond what was allowed": (bare(HEADERS, 4, 1, b"\x3f\xe1\xff\x03"), COMPRESSION_ERROR),
    "more padding than frame": (bare(HEADERS, 4 | PADDED, 1, b"\xff" + block()), PROTOCOL_ERROR),
    "padding without its length": (opened() + bare(DATA, PADDED, 1), PROTOCOL_ERROR),
    "an HPACK bomb": (bomb(), ENHANCE_YOUR_CALM),
    "a flood of continuations": (
        bare(HEADERS, 0, 1, block()) + ContinuationFrame(1).serialize() * 20,
        ENHANCE_YOUR_CALM,
    ),
    "an endless header block": (bare(HEADERS, 0, 1) + bare(CONTINUATION, 0, 1, bytes(16384)) * 17, ENHANCE_YOUR_CALM),
    "a flood of pings": (PingFrame(0, bytes(8)).serialize() * 3000, ENHANCE_YOUR_CALM),
    "a flood of settings": (SettingsFrame(0).serialize() * 3000, ENHANCE_YOUR_CALM),
    "a flood of empty data": (opened() + DataFrame(1).serialize() * 3000, ENHANCE_YOUR_CALM),
    "a flood of window updates": (WindowUpdateFrame(0, 1).serialize() * 3000, ENHANCE_YOUR_CALM),
    "a flood of priorities": (PriorityFrame(1).serialize() * 3000, ENHANCE_YOUR_CALM),
    "a flood of unknown frames": (bare(77, 0, 0) * 3000, ENHANCE_YOUR_CALM),
    "a flood of wrong streams": (b"".join(opened(n, [("a", "b")]) for n in range(1, 6001, 2)), ENHANCE_YOUR_CALM),
    "rapid reset": (
        b"".join(opened(n) + RstStreamFrame(n, 8).serialize() for n in range(1, 6001, 2)),
        ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("what", OF_CONNECTIONS)
def test_a_connection_ends_with_the_right_code(what):
    sent, code = OF_CONNECTIONS[what]

    async def test():
        async with serving() as app, connected(app) as wire:
            wire.send(sent)
            goodbye = await wire.until(GoAwayFrame)
            assert (goodbye.error_code, bool(goodbye.additional_data)) == (code, True), goodbye
            while await wire.frame() is not None:
                pass
            await until(app.clean)

    run(test())


def head(*changes, without="") -> list:
    return [*(field for field in ECHO if field[0] != without), *changes]


OF_STREAMS = {
    "upper case": (opened(1, head(("Upper", "x"))), PROTOCOL_ERROR),
    "a space in a name": (opened(1, head(("a b", "x"))), PROTOCOL_ERROR),
    "a header of connections": (opened(1, head(("connection", "close"))), PROTOCOL_ERROR),
    "another coding of transfers": (opened(1, head(("transfer-encoding", "chunked"))), PROTOCOL_ERROR),
    "te of more than trailers": (opened(1, head(("te", "gzip"))), PROTOCOL_ERROR),
    "no method": (opened(1, head(without=":method")), PROTOCOL_ERROR),
    "no scheme": (opened(1, head(without=":scheme")), PROTOCOL_ERROR),
    "no path": (opened(1, head(without=":path")), PROTOCOL_ERROR),
    "an empty path": (opened(1, head((":path", ""), without=":path")), PROTOCOL_ERROR),
    "two paths": (opened(1, head((":path", "/"))), PROTOCOL_ERROR),
    "a pseudo-header of answers": (opened(1, head((":status", "200"))), PROTOCOL_ERROR),
    "a pseudo-header behind others": (opened(1, [*ECHO[:2], ("a", "b"), ECHO[2]]), PROTOCOL_ERROR),
    "a line break in a value": (opened(1, head(("a", "b\nc"))), PROTOCOL_ERROR),
    "a length that is none": (opened(1, head(("content-length", "-1"))), PROTOCOL_ERROR),
    "a length that is no length any more": (opened(1, head(("content-length", "9" * 5000))), PROTOCOL_ERROR),
    "more data than its length": (
        opened(1, head(("content-length", "1"))) + bare(DATA, 1, 1, b"xx"),
        PROTOCOL_ERROR,
    ),
    "less data than its length": (opened(1, head(("content-length", "1")), "END_STREAM"), PROTOCOL_ERROR),
    "data behind the end": (opened(1, HOLD, "END_STREAM") + bare(DATA, 0, 1, b"x"), STREAM_CLOSED),
    "headers behind the end": (opened(1, HOLD, "END_STREAM") + opened(1, [("a", "b")], "END_STREAM"), STREAM_CLOSED),
    "trailers that do not end": (opened(1) + opened(1, [("a", "b")]), PROTOCOL_ERROR),
    "data on a stream that was withdrawn": (
        opened(1) + bare(RST_STREAM, 0, 1, bytes(4)) + bare(DATA, 0, 1, b"x"),
        STREAM_CLOSED,
    ),
    "a window update by nothing": (opened(1) + bare(WINDOW_UPDATE, 0, 1, bytes(4)), PROTOCOL_ERROR),
    "a window beyond limits": (opened(1) + bare(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), FLOW_CONTROL_ERROR),
    "a short priority": (opened(1) + bare(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "more data than the window": (
        opened(1) + bare(DATA, 0, 1, bytes(16384)) * (limits.STREAM_WINDOW // 16384 + 1),
        FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize("what", OF_STREAMS)
def test_a_stream_ends_with_the_right_code_and_the_connection_goes_on(what):
    sent, code = OF_STREAMS[what]

    async def test():
        async with serving() as app, connected(app) as wire:
            wire.send(sent)
            assert (await wire.until(RstStreamFrame, 1)).error_code == code
            assert not app.open
            wire.send(wire.headers(101, ECHO), DataFrame(101, b"still here", flags=["END_STREAM"]))
            assert await wire.answer(101) == b"still here"

    run(test())


def test_a_stream_too_many_is_refused_and_may_be_tried_again():
    async def test():
        async with serving() as app, connected(app) as wire:
            wire.send(*(wire.headers(2 * nth + 1, HOLD) for nth in range(limits.MAX_STREAMS + 1)))
            refused = await wire.until(RstStreamFrame)
            assert (refused.stream_id, refused.error_code) == (2 * limits.MAX_STREAMS + 1, REFUSED_STREAM)
            wire.send(RstStreamFrame(1, 8), wire.headers(9001, ECHO, "END_STREAM"))
            assert await wire.answer(9001) == b""
            assert len(app.open) == limits.MAX_STREAMS - 1

    run(test())


@pytest.mark.parametrize(
    "greeting",
    [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.1\r\n\r\n", b"\0" * 24],
)
def test_who_speaks_something_else_is_told_so(greeting):
    async def test():
        async with serving() as app, connected(app, greeting=False) as wire:
            wire.send(greeting)
            answer = await wire.reader.read()
            assert answer.startswith(b"HTTP/1.1 505 HTTP Version Not Supported\r\n")
            assert "gRPC" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            await until(app.clean)

    run(test())


def test_the_first_frame_must_be_settings():
    async def test():
        for first in (PingFrame(0, bytes(8)).serialize(), opened(1)):
            async with serving() as app, connected(app, greeting=False) as wire:
                wire.send(PREFACE, first)
                assert (await wire.until(GoAwayFrame)).error_code == PROTOCOL_ERROR

    run(test())


def test_a_greeting_and_a_header_block_that_never_end_are_given_up():
    async def test():
        async with serving() as app, connected(app, greeting=False) as silent, connected(app) as half:
            half.send(bare(HEADERS, 0, 1, block()))
            await until(lambda: any(each.streams.in_headers for each in app.connections) and len(app.connections) == 2)
            for _ in range(2):  # the second time, the end of the connections is waited for no longer
                for connection in tuple(app.connections):
                    connection.second(connection._loop.time() + 10, 5.0)
            assert await silent.reader.read() != b"" or not app.connections
            assert (await half.until(GoAwayFrame)).error_code == ENHANCE_YOUR_CALM
            await until(app.clean)

    run(test())


def pass_time(app, seconds: float) -> None:
    for connection in tuple(app.connections):
        connection.second(connection._loop.time() + seconds, 5.0)


def test_a_client_that_reads_nothing_is_cut_off():
    async def test():
        async with serving() as app, connected(app) as wire:
            wire.send(SettingsFrame(0, settings={4: 2**30}), WindowUpdateFrame(0, 2**30))
            for number in range(1, 41, 2):
                wire.send(wire.headers(number, ECHO))
                wire.send(*(bare(DATA, last, number, bytes(16_000)) for last in [0] * 249 + [1]))
                await wire.writer.drain()
            await until(lambda: any(each.streams.outbox.paused for each in app.connections))
            pass_time(app, 10)
            assert app.connections
            pass_time(app, 20)
            await until(app.clean)

    run(test())


def test_an_answer_whose_window_stays_shut_is_given_up_and_the_others_are_not():
    async def test():
        async with serving() as app, connected(app) as wire:
            wire.send(SettingsFrame(0, settings={4: 10}))
            wire.send(wire.headers(1, ECHO), DataFrame(1, bytes(100), flags=["END_STREAM"]))
            await wire.until(DataFrame, 1)
            pass_time(app, 10)
            wire.send(wire.headers(3, ECHO), DataFrame(3, bytes(100), flags=["END_STREAM"]))
            await wire.until(DataFrame, 3)
            pass_time(app, 20)
            assert (await wire.until(RstStreamFrame)).stream_id == 1
            wire.send(WindowUpdateFrame(3, 90))
            assert len(await wire.answer(3)) == 90

    run(test())


def test_who_reads_too_little_gets_no_more_answers_until_it_has_read(monkeypatch):
    monkeypatch.setattr(limits, "MOST_UNSENT", 1000)

    async def test():
        async with serving() as app, connected(app) as wire:
            wire.send(SettingsFrame(0, settings={4: 0}))
            wire.send(wire.headers(1, ECHO), DataFrame(1, bytes(2000), flags=["END_STREAM"]))
            wire.send(wire.headers(3, ECHO), DataFrame(3, b"x", flags=["END_STREAM"]))
            refused = await wire.until(RstStreamFrame)
            assert (refused.stream_id, refused.error_code) == (3, REFUSED_STREAM)
            wire.send(WindowUpdateFrame(1, 2000))
            assert await wire.answer(1) == bytes(2000)
            wire.send(wire.headers(5, ECHO), DataFrame(5, flags=["END_STREAM"]))
            assert await wire.answer(5) == b""

    run(test())

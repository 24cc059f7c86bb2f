"""The same bytes mean the same however they arrive, and whatever comes in whatever order leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gateway.http2 import limits
from gateway.http2.frames import ConnectionFailed
from gateway.http2.headers import HeaderReader
from tests.gateway.http2.serving import ECHO, HOLD, PREFACE, Wire, bare, connected, run, serving, until


def session(wire: Wire) -> bytes:
    """A conversation with everything in it: what a client would send, as one string of bytes."""
    frames = [
        SettingsFrame(0, settings={4: 100_000}),
        wire.headers(1, [*ECHO, ("key", "value")]),
        DataFrame(1, b"first "),
        wire.headers(3, [*ECHO, ("key", "value")]),
        PingFrame(0, b"pingping"),
        DataFrame(3, b"other", flags=["END_STREAM"]),
        DataFrame(1, b"second", flags=["END_STREAM", "PADDED"], pad_length=9),
        wire.headers(5, HOLD),
        RstStreamFrame(5, 8),
        WindowUpdateFrame(0, 1000),
        HeadersFrame(7, wire.encoder.encode([*ECHO[:2], (":path", "/echo"), ("bad name", "x")]), flags=["END_HEADERS"]),
        wire.headers(9, ECHO, "END_STREAM"),
        wire.headers(11, ECHO),
        DataFrame(11, bytes(range(256)) * 60, flags=["END_STREAM"]),
        PingFrame(0, b"lastping"),
    ]
    block = wire.encoder.encode([*ECHO, ("long", "x" * 300)])
    frames[-1:-1] = [bare(1, 1, 13, block[:7]), bare(9, 0, 13, block[7:9]), bare(9, 4, 13, block[9:])]
    return PREFACE + b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames)


async def heard(app, cuts: list[int]) -> list[tuple]:
    """What the server says to the session when its bytes come in these pieces, by stream."""
    async with connected(app, greeting=False) as wire:
        sent = session(wire)
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            wire.send(sent[start:end])
            await wire.writer.drain()
            await asyncio.sleep(0)
        while not (isinstance(frame := await wire.frame(), PingFrame) and frame.opaque_data == b"lastping"):
            assert frame is not None, wire.seen
        return sorted(
            (frame.stream_id, nth, type(frame).__name__, sorted(frame.flags), bytes(getattr(frame, "data", b"")))
            for stream in {frame.stream_id for frame in wire.seen}
            for nth, frame in enumerate(each for each in wire.seen if each.stream_id == stream)
        )


def test_however_the_bytes_are_cut_the_outcome_is_the_same():
    async def test():
        async with serving() as app:
            whole = await heard(app, [])
            assert {row[0] for row in whole} == {0, 1, 3, 7, 9, 11, 13}
            chance = random.Random(4)
            size = len(session(Wire(None, None)))
            for pieces in (1, 2, 3, 5, 8, 20, 60, 200):
                for _ in range(4):
                    assert await heard(app, sorted(chance.sample(range(1, size), pieces))) == whole
            assert await heard(app, list(range(1, 400))) == whole  # byte by byte
            await until(app.clean)

    run(test())


def test_blocks_of_headers_are_read_or_refused_and_what_is_remembered_is_what_would_be_decoded():
    chance = random.Random(1)
    fields = [(f"name-{nth}", "v" * nth) for nth in range(20)] + ECHO
    for _ in range(40):
        encoder, plain, remembering = Encoder(), Decoder(), HeaderReader()
        for _ in range(60):  # the table changes now and then: most blocks come again
            block = encoder.encode(chance.sample(fields, chance.randrange(1, 5)), huffman=chance.random() < 0.5)
            expected = tuple(plain.decode(block, raw=True))
            assert remembering.read(block).fields == expected
            if chance.random() < 0.05:
                encoder.header_table_size = chance.choice((0, 200, 4096))
    for _ in range(3000):
        with contextlib.suppress(ConnectionFailed):
            HeaderReader().read(chance.randbytes(chance.randrange(60)))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_in_whatever_order_nothing_leaks(seed):
    """Streams are opened, fed, ended and withdrawn at random: echoes come back whole, nothing stays behind."""

    async def test():
        chance = random.Random(seed)
        async with serving() as app, connected(app) as wire:
            wire.send(WindowUpdateFrame(0, 2**30))
            sent: dict[int, bytearray] = {}
            expected: dict[int, bytes] = {}
            held: set[int] = set()
            number = -1
            for _ in range(600):
                deed = chance.random()
                if deed < 0.3 or not sent:
                    number += 2
                    path = ECHO if chance.random() < 0.8 else HOLD
                    extra = [("nth", str(chance.randrange(20)))] if chance.random() < 0.3 else []
                    sent[number] = bytearray()
                    if path is HOLD:
                        held.add(number)
                    wire.send(wire.headers(number, [*path, *extra]))
                    continue
                stream = chance.choice(list(sent))
                if deed < 0.7:
                    piece = chance.randbytes(chance.choice((1, 10, 1000)))
                    sent[stream] += piece
                    wire.send(DataFrame(stream, bytes(piece)))
                elif deed < 0.85:
                    body = bytes(sent.pop(stream))
                    wire.send(DataFrame(stream, b"", flags=["END_STREAM"]))
                    if stream not in held:
                        expected[stream] = body
                elif deed < 0.97:
                    del sent[stream]
                    held.discard(stream)
                    wire.send(RstStreamFrame(stream, 8))
                else:
                    wire.send(PingFrame(0, bytes(8)))
                if chance.random() < 0.1:
                    await wire.writer.drain()
                    await asyncio.sleep(0)
            wire.send(PingFrame(0, b"the last"))
            got: dict[int, bytearray] = {}
            ended: set[int] = set()
            last = False
            while not last or ended < expected.keys():
                frame = await wire.frame()
                assert isinstance(frame, Frame) and not isinstance(frame, GoAwayFrame), frame
                if isinstance(frame, DataFrame):
                    got.setdefault(frame.stream_id, bytearray()).extend(frame.data)
                if "END_STREAM" in frame.flags:
                    ended.add(frame.stream_id)
                last = last or (isinstance(frame, PingFrame) and frame.opaque_data == b"the last")
            assert {stream: bytes(got.get(stream, b"")) for stream in expected} == expected
            [connection] = app.connections
            alive = set(sent) | held
            assert set(connection.streams.open) == alive
            assert {each.stream.number for each in app.open} == alive
            held_bytes = sum(len(each.body) for each in app.open if each.path == b"/hold")
            assert connection.streams.room + connection.streams.owed == limits.CONNECTION_WINDOW - held_bytes
            assert connection.streams.outbox.unsent == 0
            wire.writer.close()
            await until(app.clean)

    run(test())

"""The connection as a client of another make sees it: the `h2` library, which checks all that we send."""

from __future__ import annotations

import asyncio
import random

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hyperframe.frame import DataFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from tests.gateway.http2.serving import ECHO, HOLD, connected, run, serving, until

Setting = h2.settings.SettingCodes


class H2Client:
    """A client on the `h2` library. Bodies of answers by stream, once they are complete."""

    def __init__(self, settings=None) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
            self.h2.max_inbound_frame_size = settings.get(Setting.MAX_FRAME_SIZE, 16_384)
        self.bodies: dict[int, bytearray] = {}
        self.answered: dict[int, bytes] = {}
        self.trailers: dict[int, list] = {}
        self.reset: dict[int, int] = {}
        self.pings = 0
        self.goodbye = None

    async def connect(self, port: int) -> H2Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.h2.initiate_connection()
        self.flush()
        return self

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def close(self) -> None:
        self.writer.close()

    async def ask(self, body: bytes, path=ECHO, length=None) -> int:
        """Send a request whole, in the window that the server gives; the stream."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream, [*path, (":authority", "x"), *([("content-length", str(length))] if length else [])]
        )
        at = 0
        while at < len(body):
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                assert await self.read()
                continue
            self.h2.send_data(stream, body[at : at + room])
            at += room
            self.flush()
        self.h2.end_stream(stream)
        self.flush()
        return stream

    async def read(self) -> bool:
        """Take what comes; false at the end."""
        data = await asyncio.wait_for(self.reader.read(1 << 16), 20)
        for event in self.h2.receive_data(data) if data else ():
            if isinstance(event, h2.events.DataReceived):
                self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[event.stream_id] = event.headers
            elif isinstance(event, h2.events.StreamEnded):
                self.answered[event.stream_id] = bytes(self.bodies.pop(event.stream_id, b""))
            elif isinstance(event, h2.events.StreamReset):
                self.reset[event.stream_id] = event.error_code
            elif isinstance(event, h2.events.PingAckReceived):
                self.pings += 1
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goodbye = event
        self.flush()
        return bool(data)

    async def answer(self, stream: int) -> bytes:
        while stream not in self.answered:
            assert await self.read(), "the server closed the connection"
        return self.answered.pop(stream)


def test_bodies_of_every_size_come_back_whole():
    async def test():
        async with serving() as app:
            client = await H2Client().connect(app.port)
            for size in (0, 1, 5, 16_379, 16_384, 16_385, 65_535, 65_536, 1_000_000, 9_000_000):
                body = random.Random(size).randbytes(size)
                stream = await client.ask(body, length=size)
                assert await client.answer(stream) == body
                assert client.trailers[stream] == [("done", "yes")]
            client.close()
            await until(app.clean)

    run(test())


def test_many_streams_at_once_get_their_own_bodies_in_turn():
    async def test():
        async with serving() as app:
            client = await H2Client().connect(app.port)
            bodies = {}
            for nth in range(100):
                body = bytes((nth,)) * (nth * 997)
                bodies[await client.ask(body)] = body
            assert {stream: await client.answer(stream) for stream in bodies} == bodies
            client.close()
            await until(app.clean)

    run(test())


@pytest.mark.parametrize(
    "settings",
    [
        {Setting.INITIAL_WINDOW_SIZE: 1},
        {Setting.INITIAL_WINDOW_SIZE: 7_000_000, Setting.MAX_FRAME_SIZE: 2**24 - 1},
        {Setting.HEADER_TABLE_SIZE: 0},
        {Setting.HEADER_TABLE_SIZE: 100},
        {Setting.MAX_FRAME_SIZE: 20_000, Setting.ENABLE_PUSH: 0},
    ],
)
def test_whatever_the_settings_of_the_client(settings):
    async def test():
        async with serving() as app:
            client = await H2Client(settings).connect(app.port)
            body = b"0123456789" * (20 if 1 in settings.values() else 100_000)
            for _ in range(3):
                assert await client.answer(await client.ask(body)) == body
            client.close()

    run(test())


def test_an_answer_waits_for_windows_that_settings_and_updates_open_and_shut():
    async def test():
        async with serving() as app, connected(app) as wire:

            async def comes(*sent) -> int:
                """Bytes of the answer that come once this was sent."""
                before = len(wire.seen)
                wire.send(*sent, PingFrame(0, bytes(8)))
                await wire.until(PingFrame)
                return sum(len(frame.data) for frame in wire.seen[before:] if isinstance(frame, DataFrame))

            ask = wire.headers(1, ECHO), DataFrame(1, bytes(100), flags=["END_STREAM"])
            assert await comes(SettingsFrame(0, settings={4: 0}), *ask) == 0
            wire.send(wire.headers(3, ECHO, "END_STREAM"))
            assert await wire.answer(3) == b""  # it needs no window
            assert await comes(SettingsFrame(0, settings={4: 10})) == 10
            assert await comes(SettingsFrame(0, settings={4: 0})) == 0
            assert await comes(WindowUpdateFrame(1, 10)) == 0  # ten less than nothing were left
            assert await comes(WindowUpdateFrame(1, 5)) == 5
            assert await comes(WindowUpdateFrame(0, 1000)) == 0
            wire.send(SettingsFrame(0, settings={4: 1000}))
            assert len(await wire.answer(1)) == 85

    run(test())


def test_pings_are_answered_and_trailers_and_padding_understood():
    async def test():
        async with serving() as app:
            client = await H2Client().connect(app.port)
            client.h2.ping(b"12345678")
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, [*ECHO, (":authority", "x")], priority_weight=16, priority_depends_on=0)
            client.h2.send_data(stream, b"padded", pad_length=200)
            client.h2.send_headers(stream, [("checksum", "1")], end_stream=True)
            client.flush()
            assert (await client.answer(stream), client.pings) == (b"padded", 1)
            client.close()

    run(test())


def test_a_withdrawn_stream_is_told_and_its_window_given_back():
    async def test():
        async with serving() as app:
            client = await H2Client().connect(app.port)
            for _ in range(40):  # together far more than the window of the connection
                stream = await client.ask(b"x" * 3_000_000, HOLD)
                client.h2.reset_stream(stream)
                client.flush()
            assert await client.answer(await client.ask(b"y" * 3_000_000)) == b"y" * 3_000_000
            assert app.withdrawn == 40
            client.close()
            await until(app.clean)

    run(test())


def test_a_closing_connection_says_so_and_ends_with_its_last_stream():
    async def test():
        async with serving() as app:
            client = await H2Client().connect(app.port)
            held = client.h2.get_next_available_stream_id()
            client.h2.send_headers(held, [*ECHO, (":authority", "x")])
            client.flush()
            await until(lambda: app.open)
            for connection in app.connections:
                connection.close_softly()
            while client.goodbye is None:
                await client.read()
            assert (client.goodbye.error_code, client.goodbye.last_stream_id) == (h2.errors.ErrorCodes.NO_ERROR, held)
            # h2 itself refuses to go on after a goodbye; the stream that was open may
            client.writer.write(b"\0\0\x02\0\x01" + held.to_bytes(4, "big") + b"ok")
            rest = await asyncio.wait_for(client.reader.read(), 20)
            assert b"ok" in rest
            await until(app.clean)

    run(test())

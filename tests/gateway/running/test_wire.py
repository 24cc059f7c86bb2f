"""The hop's framing: what is packed comes back; what is not a message is refused, whatever it is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.running import wire
from gateway.running.wire import Place

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
I64 = st.integers(-(2**63), 2**63 - 1)
PLACES = st.lists(
    st.builds(Place, U16, st.sampled_from(wire.DATATYPES), st.lists(I64, max_size=8).map(tuple), U64, U64), max_size=6
)


@given(U8, U32, U64, U64, PLACES, U8)
def test_a_run_message_comes_back_as_it_was(slot, session, batch, free, places, instances):
    message = wire.unpack(wire.pack_run(slot, session, batch, free, places, instances))
    assert message == wire.Run(slot, session, batch, free, tuple(places), instances)


@given(U8, U32, U64, I64, I64, PLACES)
def test_a_done_message_comes_back_as_it_was(slot, session, batch, start, end, places):
    message = wire.unpack(wire.pack_done(slot, session, batch, start, end, places))
    assert message == wire.Done(slot, session, batch, start, end, tuple(places))


@given(U8, U32, U64, st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_a_failed_message_carries_its_words(slot, session, batch, text):
    message = wire.unpack(wire.pack_failed(slot, session, batch, 1, 2, text))
    assert message == wire.Failed(slot, session, batch, 1, 2, text)


def test_json_messages_come_back_as_they_were():
    spec = wire.WarmInput("x", "FP32", (-1, 4))
    bodies = [
        wire.Load(3, {"model.onnx": "/tmp/m"}, {"precision": "f32"}, 2, (spec,), (spec,), (1, 8)),
        wire.Loaded(3, 0.25, 0.001, "note"),
        wire.Refused(3, "why"),
        wire.Unload(3),
        wire.Unloaded(3),
        wire.Ready(17),
    ]
    assert [wire.unpack(wire.pack_body(body)) for body in bodies] == bodies


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_never_anything_else(data):
    with contextlib.suppress(wire.WireError):
        wire.unpack(data)


@given(U8, PLACES.filter(bool), st.data())
def test_a_cut_or_extended_message_is_refused(slot, places, data):
    message = wire.pack_run(slot, 1, 2, 3, places)
    cut = data.draw(st.integers(1, len(message) - 1))
    for broken in (message[:cut], message + b"\0"):
        with pytest.raises(wire.WireError):
            wire.unpack(broken)


@pytest.mark.parametrize(
    "place",
    [
        Place(0, "FP32", (2, 4), 100, 32),
        Place(0, "FP32", (2, 4), 0, 31),
        Place(0, "FP32", (-1, 4), 0, 0),
        Place(0, "FP64", (2**40, 2**40), 0, 8),
        Place(0, "BYTES", (1,), 2**63, 2**63),
    ],
)
def test_a_tensor_that_is_not_inside_the_slot_is_refused(place):
    with pytest.raises(wire.WireError):
        wire.check_place(place, 128)


def test_a_tensor_inside_the_slot_is_accepted():
    wire.check_place(Place(0, "FP32", (2, 4), 96, 32), 128)

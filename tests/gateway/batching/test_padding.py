"""Batches filled up to a number of rows, and what is cut off again."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gateway.batching.batch import Item
from gateway.batching.padding import fill_padded, padded_rows, without_padding
from gateway.running.wire import Done, Place
from gateway.tensors import Checked, Tensor
from tests.gateway.engines import array, tensor


def items(*requests):
    made = []
    for arrays in requests:
        tensors = tuple(map(tensor, arrays))
        request = Checked(tensors, len(arrays[0]), sum(len(t.data) for t in tensors), ())
        made.append(Item(request, asyncio.Future(loop=asyncio.new_event_loop()), 0, 0, None, None, 100))
    return made


def in_slot(slot, place):
    return array(Tensor(place.datatype, place.shape, bytes(slot[place.offset : place.offset + place.nbytes])))


@pytest.mark.parametrize(("rows", "padded"), [(1, 4), (3, 4), (4, 0), (5, 16), (16, 0), (17, 0)])
def test_a_batch_is_filled_up_to_the_next_bucket_that_pays(rows, padded):
    assert padded_rows(rows, (4, 16), nbytes=rows * 10, most_bytes=1000) == padded


def test_a_batch_is_not_filled_beyond_its_slot():
    assert padded_rows(3, (16,), nbytes=300, most_bytes=1599) == 0


def test_the_last_row_is_repeated_and_cut_off_again():
    slot = memoryview(bytearray(4096))
    first = (np.float32([[1, 2], [3, 4]]), np.array([["a", ""], ["bc", "ü"]], dtype=object))
    second = (np.float32([[5, 6]]), np.array([["d", "efg"]], dtype=object))
    places, end = fill_padded(slot, items(first, second), 5)
    np.testing.assert_array_equal(in_slot(slot, places[0]), [[1, 2], [3, 4], [5, 6], [5, 6], [5, 6]])
    assert in_slot(slot, places[1])[4].tolist() == [b"d", b"efg"]
    assert max(place.offset + place.nbytes for place in places) <= end
    outcome = without_padding(slot, Done(0, 1, 1, 0, 0, tuple(places)), 3, 5)
    np.testing.assert_array_equal(in_slot(slot, outcome.places[0]), [[1, 2], [3, 4], [5, 6]])
    assert in_slot(slot, outcome.places[1])[2].tolist() == [b"d", b"efg"]


def test_outputs_without_the_rows_of_the_batch_cannot_be_cut():
    place = Place(0, "FP32", (4,), 0, 16)
    assert without_padding(memoryview(bytes(64)), Done(0, 1, 1, 0, 0, (place,)), 3, 5) is None

"""A request cut into parts, and the parts' answers joined."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.batching.batch import Answer
from gateway.batching.splitting import cut, join
from gateway.counts import Counts
from gateway.tensors import Checked
from tests.gateway.engines import array, tensor


def checked(*arrays):
    tensors = tuple(map(tensor, arrays))
    nbytes = sum(len(one.data) for one in tensors)
    return Checked(tensors, len(arrays[0]), nbytes, tuple(a.shape[1:] for a in arrays))


def answer(*outputs, variant="fast", at=0):
    return Answer(
        [tensor(o) for o in outputs], variant, "ort-cpu", "fastest", 5, at, at + 10, at + 20, at + 30, 4, Counts()
    )


def numbers(rows, *shape):
    return np.arange(rows * int(np.prod(shape)), dtype=np.float32).reshape(rows, *shape)


@pytest.mark.parametrize(("rows", "limit", "sizes"), [(9, 4, [4, 4, 1]), (8, 4, [4, 4]), (3, 1, [1, 1, 1])])
def test_parts_hold_all_rows_in_their_order(rows, limit, sizes):
    texts = np.array([[f"t{n}", "ü" * n] for n in range(rows)], dtype=object)
    parts = cut(checked(numbers(rows, 2, 3), texts, np.empty((rows, 0), np.float32)), limit)
    assert [part.rows for part in parts] == sizes
    joined = [np.concatenate([array(part.inputs[nth]) for part in parts]) for nth in range(3)]
    np.testing.assert_array_equal(joined[0], numbers(rows, 2, 3))
    assert [text.decode() for text in joined[1].ravel()] == texts.ravel().tolist()
    assert joined[2].shape == (rows, 0)
    assert sum(part.nbytes for part in parts) == sum(len(t.data) for part in parts for t in part.inputs)


def test_the_joined_answer_lasts_from_the_first_moments_to_the_last_and_names_who_answered_most():
    parts = [answer(numbers(2, 3), variant="far", at=100), answer(numbers(4, 3), at=50), answer(numbers(1, 3), at=200)]
    joined = join(parts, (2, 4, 1))
    np.testing.assert_array_equal(
        array(joined.outputs[0]), np.concatenate([numbers(2, 3), numbers(4, 3), numbers(1, 3)])
    )
    assert (joined.variant, joined.queued_ns, joined.sent_ns, joined.start_ns) == ("fast", 5, 50, 60)
    assert (joined.end_ns, joined.answered_ns) == (220, 230)


def test_answers_that_do_not_fit_together_are_not_joined():
    assert join([answer(numbers(2, 3)), answer(numbers(2, 4))], (2, 2)) is None
    assert join([answer(numbers(1, 3)), answer(numbers(1, 3))], (2, 2)) is None
    assert join([answer(np.float32(1.0)), answer(np.float32(1.0))], (2, 2)) is None

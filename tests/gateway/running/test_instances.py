"""Which batches of a runner run together, and the gate that keeps to it."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.running.instances import Gate, together

CASES = (
    ([], 0),
    ([1], 1),
    ([1, 1], 1),
    ([2, 2], 2),
    ([2, 2, 2], 2),
    ([2, 1], 1),
    ([1, 2], 1),
    ([3, 2, 3], 2),
    ([3, 3, 2], 2),
    ([4, 4, 4, 4, 4], 4),
)


@pytest.mark.parametrize(("instances", "count"), CASES)
def test_batches_run_together_only_while_each_allows_as_many(instances, count):
    assert together(instances) == count


@given(st.lists(st.integers(1, 6), max_size=12))
def test_none_of_those_that_run_together_is_more_crowded_than_it_allows(instances):
    count = together(instances)
    assert count == len(instances) or count + 1 > min(instances[: count + 1])
    assert all(count <= allowed for allowed in instances[:count])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_gate_lets_in_the_oldest_and_as_many_as_the_rule_says(batches, random):
    """Batches come in order, any of those that run may end first; what runs is what `together` says of all of them."""
    gate, inside, left = Gate(), [], list(batches)

    def enter() -> None:
        for instances in batches:
            gate.enter(instances)
            inside.append(instances)

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    while left:
        end = time.monotonic() + 5
        while len(inside) < together(left) and time.monotonic() < end:
            time.sleep(0.0001)
        assert inside == left[: together(left)]
        ended = random.randrange(len(inside))
        del left[ended]
        gate.leave(inside.pop(ended))
    thread.join(5)
    assert not thread.is_alive() and gate.idle()


def test_whoever_waits_for_the_gate_to_be_idle_waits_for_every_batch():
    gate, over = Gate(), threading.Event()
    gate.enter(2)
    gate.enter(2)
    thread = threading.Thread(target=lambda: (gate.wait_idle(), over.set()), daemon=True)
    thread.start()
    gate.leave(2)
    assert not over.wait(0.05)
    gate.leave(2)
    assert over.wait(5)

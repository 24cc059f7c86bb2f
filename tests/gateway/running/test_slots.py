"""Slot memory: anonymous, sealed, and given back after an unusually large batch."""

from __future__ import annotations

import os

import pytest

from gateway.running.slots import SlotMemory, aligned

MIB = 1 << 20


@pytest.fixture
def memory():
    memory = SlotMemory.create(2, 16 * MIB)
    yield memory
    memory.close()


def resident(memory: SlotMemory) -> int:
    return os.fstat(memory.fd).st_blocks * 512


def test_what_one_side_writes_the_other_reads(memory):
    other = SlotMemory(os.dup(memory.fd), 2, memory.slot_bytes)
    memory.slots[1][100:105] = b"hello"
    assert bytes(other.slots[1][100:105]) == b"hello"
    assert bytes(other.slots[0][100:105]) == bytes(5)
    other.close()


def test_slots_cost_nothing_until_they_are_touched(memory):
    assert resident(memory) == 0


def test_nobody_can_resize_it_under_the_gateway(memory):
    for size in (0, 64 * MIB):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, size)


def test_pages_of_one_huge_batch_are_given_back_and_those_of_usual_ones_kept(memory):
    memory.slots[0][: 12 * MIB] = bytes(12 * MIB)
    memory.used(0, 12 * MIB)
    memory.trim([0, 1])
    memory.used(0, 2 * MIB)
    assert memory.trim([0, 1]) == 0, "the huge batch was within the last two periods"
    memory.used(0, 2 * MIB)
    memory.slots[0][:5] = b"stays"
    assert memory.trim([0, 1]) == 10 * MIB
    assert resident(memory) == 2 * MIB
    assert bytes(memory.slots[0][:5]) == b"stays"


def test_a_slot_in_use_is_left_alone(memory):
    memory.slots[0][: 12 * MIB] = bytes(12 * MIB)
    memory.used(0, 12 * MIB)
    assert [memory.trim([1]) for _ in range(4)] == [0, 0, 0, 0]


def test_offsets_are_rounded_up_to_cache_lines():
    assert [aligned(n) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]

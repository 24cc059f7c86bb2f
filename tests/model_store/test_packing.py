"""The codec of bytes at rest: every byte comes back, and weights of every kind get as small as their kind allows."""

import contextlib
import io

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store import packing
from model_store.packing import BLOCK, Damaged

RANDOM = np.random.default_rng(7)
NORMAL = RANDOM.standard_normal(400_000).astype(np.float32)


def packed(data: bytes) -> bytes:
    out = io.BytesIO()
    assert packing.pack(io.BytesIO(data).read, len(data), out.write) == out.tell()
    return out.getvalue()


def unpacked(data: bytes) -> bytes:
    return b"".join(packing.unpack(io.BytesIO(data)))


def kinds(data: bytes) -> set[int]:
    found, at = set(), packing._HEAD.size
    while at < len(data):
        kind, size, _ = packing._BLOCK_HEAD.unpack_from(data, at)
        found.add(kind)
        at += packing._BLOCK_HEAD.size + size
    return found


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=600))
def test_every_text_comes_back(data: bytes) -> None:
    assert unpacked(packed(data)) == data
    assert packing.plain_size(io.BytesIO(packed(data))) == len(data)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=400),
    st.integers(1, 3000),
    st.binary(max_size=3),
    st.binary(max_size=3),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_every_array_of_words_comes_back_wherever_it_begins(
    values: list[int], count: int, before: bytes, behind: bytes, zeros: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    words = random.choice(np.array(values, np.uint32), count)
    words[random.random(count) < zeros] = 0
    data = before + words.tobytes() + behind
    assert unpacked(packed(data)) == data
    for made, restore in ((packing._palette, packing._from_palette), (packing._sparse, packing._from_sparse)):
        shaped = made(data)
        assert shaped is None or restore(shaped, len(data)) == data


@pytest.mark.parametrize("size", [0, 1, 3, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_sizes_around_a_block_come_back(size: int) -> None:
    data = RANDOM.integers(0, 4, size, dtype=np.uint8).tobytes()
    assert unpacked(packed(data)) == data


@pytest.mark.parametrize("begins", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("weights", "at_least", "kind"),
    [
        (NORMAL, 1.07, packing.PLANES_4),
        (NORMAL.astype(np.float16), 1.1, packing.PLANES_2),
        (np.where(RANDOM.random(NORMAL.size) < 0.9, 0, NORMAL), 7.5, packing.SPARSE),
        (np.float32(0.01) * np.round(NORMAL * 4).clip(-7, 7), 7.0, packing.PALETTE),
        (np.exp2(np.round(np.log2(np.abs(NORMAL)) * 32) / 32).astype(np.float32), 3.5, packing.PALETTE),
    ],
    ids=["floats", "halves", "sparse", "four bits", "logarithms"],
)
def test_weights_take_the_shape_that_suits_them(weights: np.ndarray, at_least: float, kind: int, begins: int) -> None:
    data = b"x" * begins + weights.tobytes()
    made = packed(data)
    assert len(data) / len(made) >= at_least
    assert kind in kinds(made)
    assert unpacked(made) == data


def test_noise_costs_next_to_nothing_more() -> None:
    data = RANDOM.bytes(3 * BLOCK)
    assert len(packed(data)) <= len(data) * 1.002


@pytest.mark.parametrize("cut", [0, 5, 12, 13, 20, 200, -1])
def test_a_file_that_was_cut_is_damaged(cut: int) -> None:
    made = packed(NORMAL.tobytes())
    with pytest.raises(Damaged):
        unpacked(made[:cut])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3000), st.integers(1, 255))
def test_a_flipped_bit_never_escapes_as_another_error(at: int, change: int) -> None:
    data = np.round(NORMAL[:2000], 1).tobytes()
    made = bytearray(packed(data))
    made[at % len(made)] ^= change
    with contextlib.suppress(Damaged):
        assert len(unpacked(bytes(made))) <= len(data) + BLOCK


def test_what_is_not_ours_is_told() -> None:
    with pytest.raises(Damaged, match="not a packed file"):
        unpacked(b"PK\x03\x04" + bytes(100))


def test_what_comes_out_is_bounded() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 20))
    assert packing.decompress(bomb, 1 << 20) == bytes(1 << 20)
    with pytest.raises(Damaged):
        packing.decompress(bomb, 1 << 19)

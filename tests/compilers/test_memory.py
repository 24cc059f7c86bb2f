"""Memory given back is memory a reader can still use."""

from __future__ import annotations

import numpy as np

from compilers.memory import MappedFile, give_back_free_blocks


def test_a_mapped_file_reads_the_same_after_its_pages_are_forgotten(tmp_path):
    data = np.arange(100_000, dtype=np.uint8)
    (tmp_path / "weights").write_bytes(data.tobytes())
    mapped = MappedFile(tmp_path / "weights")
    assert np.array_equal(mapped.array, data) and mapped.array.flags.writeable
    mapped.forget()
    assert np.array_equal(mapped.array, data)


def test_an_empty_file_maps_to_an_empty_array(tmp_path):
    (tmp_path / "weights").touch()
    assert MappedFile(tmp_path / "weights").array.size == 0


def test_giving_back_is_harmless():
    give_back_free_blocks()

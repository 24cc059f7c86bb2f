"""Regions of shared memory: what clients name, bounded by what is really there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.errors import AlreadyExists, BadRequest, NotFound, TooLarge, Unsupported
from gateway.shared_memory import MOST_REGIONS, CudaRegions, Regions


@pytest.fixture
def regions(tmp_path):
    (tmp_path / "input").write_bytes(bytes(range(100)))
    return Regions(True, tmp_path)


def test_a_region_is_a_window_that_is_read_and_written(regions, tmp_path):
    regions.register("r", "/input", 10, 50)
    assert regions.read("r", 5, 3) == bytes([15, 16, 17])
    assert regions.read("r", 50 - 1, 0) == b""
    regions.write("r", 49, b"\xff")
    assert (tmp_path / "input").read_bytes()[59] == 255
    assert regions.status() == regions.status("r") == [{"name": "r", "key": "/input", "offset": 10, "byte_size": 50}]


@pytest.mark.parametrize(("offset", "size", "words"), [
    (-1, 1, "Invalid offset for shared memory region: 'r'"),
    (50, 1, "Invalid offset for shared memory region: 'r'"),
    (0, 51, r"Invalid offset \+ byte size for shared memory region: 'r'"),
    (49, 2, r"Invalid offset \+ byte size"),
    (0, -1, r"Invalid offset \+ byte size"),
])  # fmt: skip
def test_nothing_outside_of_a_region_is_touched(regions, offset, size, words):
    regions.register("r", "/input", 10, 50)
    with pytest.raises(BadRequest, match=words):
        regions.read("r", offset, size)
    if size >= 0:
        with pytest.raises(BadRequest, match=words):
            regions.write("r", offset, bytes(size))


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (100, 1), (-1, 5), (0, 0), (0, -1), (2**63, 1)])
def test_a_region_lies_within_its_file(regions, offset, size):
    with pytest.raises(BadRequest, match="failed to register shared memory region 'r': invalid args"):
        regions.register("r", "/input", offset, size)
    assert regions.status() == []


@pytest.mark.parametrize("key", [
    "input", "/in/put", "/../input", "//input", "/", "", "/.", "/..", "/a\0b", "/" + "x" * 300, "/none", "/link",
    "/folder", "/pipe", "/ünput",
])  # fmt: skip
def test_a_key_is_the_name_of_a_file_and_never_a_path_or_a_link(regions, tmp_path, key):
    (tmp_path / "link").symlink_to(tmp_path / "input")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadRequest, match="Unable to open shared memory region"):
        regions.register("r", key, 0, 1)


def test_names_are_unique_bounded_and_free_again_after_unregister(regions):
    regions.register("r", "/input", 0, 10)
    with pytest.raises(AlreadyExists, match="shared memory region 'r' already in manager"):
        regions.register("r", "/input", 0, 10)
    for name in ("", "x" * 300):
        with pytest.raises(BadRequest, match="needs a name"):
            regions.register(name, "/input", 0, 10)
    regions.unregister("r")
    regions.unregister("nobody")
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'r'"):
        regions.status("r")
    with pytest.raises(NotFound, match="Unable to find shared memory region: 'r'"):
        regions.read("r", 0, 1)
    regions.register("r", "/input", 0, 10)
    regions.unregister()
    assert regions.status() == []


def test_descriptors_are_closed_with_their_regions_and_never_without_bound(regions):
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for number in range(20):
        regions.register(f"r{number}", "/input", 0, 10)
    assert descriptors() == before + 20
    regions.unregister()
    for _ in range(5):
        with pytest.raises(BadRequest):
            regions.register("r", "/input", 0, 1000)
    assert descriptors() == before


def test_regions_are_bounded_in_number_and_in_what_is_read_at_once(tmp_path):
    (tmp_path / "input").write_bytes(bytes(100))
    regions = Regions(True, tmp_path, most_bytes=50)
    for number in range(MOST_REGIONS):
        regions.register(f"r{number}", "/input", 0, 100)
    with pytest.raises(BadRequest, match="unregister some first"):
        regions.register("r", "/input", 0, 100)
    assert len(regions.read("r0", 0, 50)) == 50
    with pytest.raises(TooLarge, match="51 bytes of shared memory are more than a batch can hold"):
        regions.read("r0", 0, 51)


def test_a_file_cut_off_by_its_owner_is_an_error_and_no_crash(regions, tmp_path):
    regions.register("r", "/input", 0, 100)
    os.truncate(tmp_path / "input", 10)
    with pytest.raises(BadRequest, match="cut off by its owner: 90 bytes"):
        regions.read("r", 0, 100)
    with pytest.raises(BadRequest, match="cut off by its owner"):
        regions.write("r", 5, bytes(10))
    assert (tmp_path / "input").stat().st_size == 10


def test_without_the_setting_nothing_is_registered_but_the_rest_answers(tmp_path):
    regions = Regions(False, tmp_path)
    with pytest.raises(Unsupported, match="with the setting shared_memory"):
        regions.register("r", "/input", 0, 1)
    regions.unregister()
    assert regions.status() == []


def test_cuda_regions_are_refused_where_there_is_no_gpu():
    regions = CudaRegions()
    with pytest.raises(BadRequest, match="failed to register CUDA shared memory region: 'r', GPUs not supported"):
        regions.register("r")
    regions.unregister("r")
    assert regions.status() == []
    with pytest.raises(NotFound):
        regions.status("r")

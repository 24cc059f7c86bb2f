"""Memory given back is memory a reader can still use."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_blocks_leave_the_process_as_they_are_freed_though_others_lie_between(tmp_path):
    """In a process of its own: what glibc keeps depends on all that was freed before."""
    (tmp_path / "child.py").write_text(
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from compilers.memory import return_large_blocks\n"
        "def held(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "return_large_blocks()\n"
        "np.ones(4_000_000)\n"
        "before, blocks, between = held(), [], []\n"
        "for _ in range(20):\n"
        "    blocks.append(np.ones(1_000_000))\n"
        "    between.append(np.ones(1000))\n"
        "full = held()\n"
        "del blocks\n"
        "print(full - before, held() - before)\n"
    )
    command = [sys.executable, str(tmp_path / "child.py")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    full, left = map(int, done.stdout.split())
    assert full > 150 << 20 and left < 10 << 20

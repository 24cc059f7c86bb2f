"""Folders and bytes as the blob store leaves them behind."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from model_store.durable import make_durable, sync_folder, write_all


def test_a_folder_is_made_with_all_it_lies_in_and_a_second_time_changes_nothing(tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    for _ in range(2):
        make_durable(folder)
        sync_folder(folder)
        assert folder.is_dir()


def test_all_bytes_are_written_to_what_takes_few_at_a_time():
    data = os.urandom(1 << 20)  # a pipe takes 64 KiB
    reading, writing = os.pipe()
    got: list[bytes] = []
    with Path(f"/dev/fd/{reading}").open("rb") as end:
        reader = threading.Thread(target=lambda: got.append(end.read()))
        reader.start()
        write_all(writing, data)
        os.close(writing)
        reader.join()
    os.close(reading)
    assert got == [data]

"""A number is read again exactly when another connection has committed, in this process or in any other."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model_store.file_watch import FileWatch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "c.db", isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (n INTEGER)")
        connection.execute("INSERT INTO t VALUES (1)")
    connection.close()
    return tmp_path / "c.db"


class Reader:
    def __init__(self, file: Path) -> None:
        self.file, self.reads = file, 0

    def __call__(self) -> int:
        self.reads += 1
        with sqlite3.connect(self.file) as connection:
            value: int = connection.execute("SELECT n FROM t").fetchone()[0]
        connection.close()
        return value


CHANGE = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('UPDATE t SET n = n + 1'); c.commit()"


def test_it_is_read_again_only_after_a_change_from_wherever(file: Path) -> None:
    watch, read = FileWatch(file), Reader(file)
    assert [watch.value(read) for _ in range(5)] == [1] * 5
    assert read.reads == 1
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE t SET n = 7")
    assert [watch.value(read) for _ in range(5)] == [7] * 5
    subprocess.run([sys.executable, "-c", CHANGE, str(file)], check=True)
    assert [watch.value(read) for _ in range(5)] == [8] * 5
    assert read.reads == 3
    watch.close()


def test_what_is_unchanged_is_told_at_once_and_a_change_is_not_overlooked(file: Path) -> None:
    watch, read = FileWatch(file), Reader(file)
    assert watch.unchanged() is None
    assert watch.value(read) == watch.unchanged() == 1
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE t SET n = 2")
    assert watch.unchanged() is None
    assert watch.value(read) == watch.unchanged() == 2
    watch.close()
    assert watch.unchanged() is None


def test_a_failed_read_is_tried_again(file: Path) -> None:
    watch, read = FileWatch(file), Reader(file)

    def fail() -> int:
        raise OSError("away")

    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            watch.value(fail)
        watch.close()
    assert watch.value(read) == 1
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE t SET n = 2")
    with pytest.raises(OSError, match="away"):
        watch.value(fail)
    assert watch.value(read) == 2
    watch.close()


def test_threads_share_it(file: Path) -> None:
    watch, read = FileWatch(file), Reader(file)
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.extend(watch.value(read) for _ in range(200))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(2, 50):
        with sqlite3.connect(file, timeout=10) as connection:
            connection.execute("UPDATE t SET n = ?", (n,))
    for thread in threads:
        thread.join()
    assert watch.value(read) == 49
    assert len(seen) == 800
    watch.close()

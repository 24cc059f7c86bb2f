"""Whether a SQLite file changed since it was last looked at, for a few microseconds.

`PRAGMA data_version` of a connection changes whenever any *other* connection, of this process or another one, has
committed (sqlite.org/pragma.html#pragma_data_version). A connection that does nothing but ask costs a hundredth of a
SELECT through an engine's pool, and an idle gateway asks a dozen times a second.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path


class FileWatch:
    """Remembers one number that was read from the file until the file changes. Safe to share between threads."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None
        self._value = 0

    def value(self, read: Callable[[], int]) -> int:
        """What `read` returned when the file was last changed. Raises what `read` does."""
        with self._lock:
            try:
                version = self._data_version()
            except sqlite3.Error:
                return read()
            if version != self._version:
                # In this order: a change between the two is seen now and looked for once more, never missed.
                self._value = read()
                self._version = version
            return self._value

    def unchanged(self) -> int | None:
        """What `value` last returned if that still holds; None: ask `value`. Never waits, never raises."""
        if self._version is None or not self._lock.acquire(blocking=False):
            return None
        try:
            return self._value if self._version is not None and self._data_version() == self._version else None
        except sqlite3.Error:
            return None
        finally:
            self._lock.release()

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _data_version(self) -> int:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._file, timeout=0, isolation_level=None, check_same_thread=False)
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:  # it never waits for a lock: who asked asks again soon
            self._drop()  # it may be another file by now: begin anew
            raise
        return version

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection, self._version = None, None

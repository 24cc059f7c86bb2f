"""What processes cost: CPU time and memory of a process and all that descend from it, read from /proc (Linux)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """The process and its descendants that are alive now."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields is not None and fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
    found, level = [], [pid] if pid in parents else []
    while level:
        found += level
        level = [child for child, parent in parents.items() if parent in level]
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds, user and system, that these processes have used so far; one that ended counts nothing."""
    total = 0
    for pid in pids:
        fields = _stat(pid)
        if fields is not None:
            total += int(fields[11]) + int(fields[12])
    return total * _TICK_S


def pss_bytes(pid: int) -> int:
    """Proportional memory: shared pages are counted in parts. 0 of a process that ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def rss_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def name(pid: int) -> str:
    """What it runs, in one word: the module or script of a Python process, else the program."""
    try:
        words = [
            word for word in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0") if word
        ]
    except OSError:
        words = []
    if not words:
        return str(pid)
    for flag in ("-m", "-c"):
        if flag in words[1:-1]:
            return words[words.index(flag) + 1].split(";")[0][:40]
    return next((Path(word).name for word in words[1:] if word.endswith(".py")), Path(words[0]).name)


def tell(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on: [0] state, [1] parent, [11] user ticks, [12] system ticks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None

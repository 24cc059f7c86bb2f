"""Sessions that several gateway processes have open in one runner: opened once, closed when the last lets go."""

from __future__ import annotations

import threading
from typing import NamedTuple

import msgspec

from gateway.running import wire
from gateway.running.channel import Channel
from gateway.running.warming import Opened


class _Kept(NamedTuple):
    opened: Opened
    run_s: float | None
    holders: list[Channel]


class Shared:
    """Every open session. What makes two the same is everything that was asked for but its number and its warm-up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[bytes, _Kept] = {}

    def join(self, channel: Channel, load: wire.Load) -> wire.Loaded | None:
        """Let `channel` have what it asks for if that is open already; None when it is not."""
        with self._lock:
            kept = self._kept.get(_name(load))
            if kept is None or channel.gone:
                return None
            kept.holders.append(channel)
            channel.sessions[load.session] = kept.opened
            return wire.Loaded(load.session, 0.0, kept.run_s)

    def add(self, channel: Channel, load: wire.Load, opened: Opened, run_s: float | None) -> bool:
        """Note what was opened for `channel`; False when that has gone meanwhile."""
        with self._lock:
            if channel.gone:
                return False
            self._kept[_name(load)] = _Kept(opened, run_s, [channel])
            channel.sessions[load.session] = opened
            return True

    def release(self, channel: Channel, number: int) -> Opened | None:
        """`channel` lets go of one of its sessions; it is returned when nobody holds it now."""
        with self._lock:
            opened = channel.sessions.pop(number, None)
            return None if opened is None else self._let_go(channel, opened)

    def leave(self, channel: Channel) -> list[Opened]:
        """The channel has gone, with all it held; the sessions that nobody holds now."""
        with self._lock:
            channel.gone = True
            numbers = list(channel.sessions)
            unheld = [self._let_go(channel, channel.sessions.pop(number)) for number in numbers]
        return [opened for opened in unheld if opened is not None]

    def _let_go(self, channel: Channel, opened: Opened) -> Opened | None:
        name, kept = next((name, kept) for name, kept in self._kept.items() if kept.opened is opened)
        kept.holders.remove(channel)
        if kept.holders:
            return None
        del self._kept[name]
        return opened


def _name(load: wire.Load) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(load, session=0, warm=()))

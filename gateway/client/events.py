"""A job's log as server-sent events (WHATWG HTML section 9.2): lines in, events out, and where to take it up again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class Event:
    """One line of a job's log. `status` is started, progress, done, failed or log; `at` POSIX seconds."""

    id: int
    job: str
    at: float
    step: str
    status: str
    text: str
    data: dict[str, Any]


class EventReader:
    """Feed it lines. `after` is the last event seen: what Last-Event-ID says when the stream is opened again."""

    def __init__(self, after: int = 0) -> None:
        self.after = after
        self.ended = False
        self._kind, self._data = "", ""

    @property
    def headers(self) -> dict[str, str]:
        return {"accept": "text/event-stream", "last-event-id": str(self.after)}

    def feed(self, line: str) -> Event | None:
        """The event that `line` completes, if any. Comments (heartbeats) are nothing."""
        if not line:
            kind, data = self._kind, self._data
            self._kind, self._data = "", ""
            return self._event(kind, data) if data else None
        field, _, value = line.partition(":")
        if field == "event":
            self._kind = value.strip()
        elif field == "data":
            self._data += value.strip()
        return None

    def _event(self, kind: str, data: str) -> Event | None:
        if kind == "end":
            self.ended = True
            return None
        facts = orjson.loads(data)
        self.after = facts["seq"]
        names = ("job", "at", "step", "status", "text")
        return Event(id=facts["seq"], data=facts.get("data") or {}, **{name: facts[name] for name in names})

"""The sessions of one runner and the opening of them: one at a time, so that a death while opening has one suspect.

(And so the socket never fills up.) In a new process they open again, most recently used first.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from gateway.running import wire
from gateway.running.session import Session

_DEATHS = 2
log = logging.getLogger("forgeway.runner")


class Loading:
    """`send` gives a message to the process there is; it is asked only while that one is ready."""

    def __init__(self, send: Callable[[bytes], None], timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._sessions: dict[int, Session] = {}
        self._queue: deque[Session] = deque()
        self._current: Session | None = None
        self._since = 0

    @property
    def sessions(self) -> tuple[Session, ...]:
        return tuple(self._sessions.values())

    @property
    def overdue(self) -> bool:
        """Whether the session being opened takes longer than it may."""
        return self._current is not None and time.monotonic_ns() - self._since > self._timeout_s * 1e9

    def want(self, session: Session, first: bool) -> None:
        """Open `session` in its turn; `first`: before others that wait to be opened."""
        self._sessions[session.load.session] = session
        if first:
            self._queue.appendleft(session)
        else:
            self._queue.append(session)

    def drop(self, session: Session) -> bool:
        """Nobody wants it any more; True when it must be closed in the runner."""
        session.closed = True
        self._sessions.pop(session.load.session, None)
        if session in self._queue:
            self._queue.remove(session)
        was_ready, session.ready = session.ready, False
        if not session.opened.done():
            session.opened.cancel()
        return was_ready

    def next(self) -> None:
        """Have the next one opened, unless one is being opened."""
        while self._current is None and self._queue:
            session = self._queue.popleft()
            try:
                message = wire.pack_load(session.load)
            except wire.WireError as exc:
                self._give_up(session, f"it has too many inputs and outputs for a runner: {exc}")
                continue
            self._current, self._since = session, time.monotonic_ns()
            self._send(message)

    def settle(self, outcome: wire.Loaded | wire.Refused) -> None:
        """The runner's word on the session being opened. Raises WireError when that is another one."""
        session, self._current = self._current, None
        if session is None or session.load.session != outcome.session:
            raise wire.WireError(f"session {outcome.session} was not being opened")
        if isinstance(outcome, wire.Refused):
            self._give_up(session, outcome.text)
        elif session.closed:  # nobody wants it any more
            self._send(wire.pack_body(wire.Unload(outcome.session)))
        else:
            session.ready = True
            session.live.start(outcome.run_s)
            if outcome.note:
                log.info("%s: %s", " ".join(session.subject), outcome.note)
            if not session.opened.done():
                session.opened.set_result(outcome)

    def died(self, words: str) -> bool:
        """The process died (`words`: how); whether it died opening a session. All must be opened again."""
        for session in self._sessions.values():
            session.ready = False
        suspect, self._current = self._current, None
        if suspect is not None and not suspect.closed:
            suspect.deaths_at_load += 1
            if suspect.deaths_at_load >= _DEATHS:
                self._give_up(suspect, f"the runner {words} while opening it, twice")
        self._queue = deque(sorted(self._sessions.values(), key=lambda session: -session.last_used))
        return suspect is not None

    def _give_up(self, session: Session, text: str) -> None:
        self._sessions.pop(session.load.session, None)
        session.give_up(text)

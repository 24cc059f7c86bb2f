"""When to try again: refusals that say "not now", and connections that broke before they were of any use."""

from __future__ import annotations

import random
from dataclasses import dataclass

from gateway.client.errors import ClientError, Unavailable, Unreachable


@dataclass(frozen=True)
class Retry:
    """`attempts` in all; pauses double from `first_s` up to `longest_s`, jittered, and heed Retry-After."""

    attempts: int = 5
    first_s: float = 0.1
    longest_s: float = 10.0

    def pause(self, attempt: int, error: ClientError, again: bool) -> float | None:
        """Seconds before the next try after try number `attempt` (1, 2, ...) failed; None: give up.

        `again` is False for calls whose repetition could do something twice: those are repeated only when the
        gateway refused them at the door.
        """
        if attempt >= self.attempts:
            return None
        if not (isinstance(error, Unavailable) or (isinstance(error, Unreachable) and again)):
            return None
        backoff: float = min(self.longest_s, self.first_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        return max(backoff, (error.retry_after or 0.0) * random.uniform(1.0, 1.25))

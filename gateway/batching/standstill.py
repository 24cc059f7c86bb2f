"""Why nothing answers: told when waiting is in vain, so that nobody waits for a deadline to learn it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.errors import NotReady
from gateway.routing.health import Health, Subject
from gateway.routing.ranking import VersionRoute
from gateway.running.runner import Runner


def standstill(
    route: VersionRoute, variants: Iterable[str], health: Health, runner_of: Callable[[str], Runner | None]
) -> NotReady | None:
    """The reasons why none of `variants` answers; None while one of them is on its way."""
    reasons = []
    for variant in variants:
        words = health.words(Subject(route.name, route.version, variant))
        session = route.sessions.get(variant)
        if words.startswith("quarantined"):
            reasons.append(f"{variant} is {words}")
        elif session is not None and not session.closed:
            runner = runner_of(session.target)
            if runner is None or not runner.trouble:
                return None
            reasons.append(f"{variant}: {runner.trouble}")
    where = f"model '{route.name}' version {route.version}"
    return NotReady(f"{where} cannot answer now: " + ("; ".join(reasons) or "no variant of it is open"))

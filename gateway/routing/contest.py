"""Who leads among the variants that may answer one kind of batch, when live figures are held against the evidence.

Evidence decides at first. It was measured on a quiet machine, so live figures are never compared with it, nor with
live figures of another hour: now and then a batch is given to a rival, and what it took is held against what the leader
takes just then. Only such ratios move anybody, only by their median, and only by a clear margin; the variant that
evidence prefers needs less to come back. Tries are paid from a budget: a hundredth of the leader's time until they
tell, a thousandth afterwards, so that one that looked slow is tried again for ever, and nobody notices.
"""

from __future__ import annotations

from gateway.routing.latency import ENOUGH, Figure

TRYING, WATCHING = 0.01, 0.001
"""Share of the leader's time that tries may take: until there are enough of them, and afterwards."""

LEAST_BETWEEN_NS = 20_000_000
"""Tries are not closer together than this, so that they see more than one moment of the machine."""

FASTER = 1.10
"""A rival takes the lead when it is this many times as fast."""

RECENT_TRIES = 7
"""Tries of a rival that count: they are far between, and a change must not take hours to be seen."""

BACK = 0.97
"""The variant that evidence prefers has it back when it is this many times as fast as who stands in for it."""


class Contest:
    """The leader, and what each rival's runs were seen to cost, as a share of the leader's at that time."""

    __slots__ = ("_before", "edges", "lead_s", "leader", "tried_ns")

    def __init__(self, leader: str) -> None:
        self.leader = leader
        self.edges: dict[str, Figure] = {}
        self.lead_s = 0.0
        """Seconds the leader ran since the last try."""
        self.tried_ns = 0
        self._before: dict[str, float] = {}
        """What the last leader was seen to cost when it lost its place."""

    def edge(self, rival: str) -> float | None:
        """What a run of `rival` costs as a share of the leader's, as seen live; None: that is not known."""
        figure = self.edges.get(rival)
        if figure is None or figure.count < ENOUGH:
            return self._before.get(rival)
        return figure.typical

    def tries(self, rival: str) -> int:
        """How many tries of `rival` count."""
        figure = self.edges.get(rival)
        return 0 if figure is None else figure.count

    def may_try(self, cost_s: float, known: bool, now_ns: int) -> bool:
        """Whether the budget allows a run of `cost_s`, and spends it if so; `known`: there were enough such tries."""
        share = WATCHING if known else TRYING
        if cost_s > share * self.lead_s or now_ns - self.tried_ns < LEAST_BETWEEN_NS:
            return False
        self.lead_s, self.tried_ns = 0.0, now_ns
        return True

    def seen(self, rival: str, edge: float, preferred: str) -> None:
        """A run of `rival` cost `edge` times the leader's; `preferred`: whom the evidence puts first."""
        self.edges.setdefault(rival, Figure(RECENT_TRIES)).add(edge)
        found = self.edge(rival)
        if self.tries(rival) < ENOUGH or found is None:
            return
        if found * (BACK if rival == preferred else FASTER) < 1.0:
            self._before = {self.leader: 1 / found}
            self.leader, self.edges, self.lead_s = rival, {}, 0.0

"""A batch that is to be answered, and who leads where batches are like it: what a run of each variant is expected to
take.

What is known best is what the leader's runs take, for it runs most: the others are expected by their ratio to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.routing.contest import Contest
from gateway.routing.ranking import VersionRoute
from gateway.running.session import Session


class Case(NamedTuple):
    """`rows` rows of `row_bytes` bytes each. `leader` leads the contest, or stands in for who does."""

    route: VersionRoute
    contest: Contest
    leader: str
    rows: int
    row_bytes: int

    @property
    def bucket(self) -> int:
        return self.route.bucket(self.rows)

    @property
    def costs(self) -> Mapping[str, float]:
        """Measured seconds of a run of the bucket, by variant; the one that evidence prefers comes first."""
        return self.route.costs[self.bucket]

    @property
    def session(self) -> Session:
        """The leader's."""
        return self.route.sessions[self.leader]

    def measured_s(self, variant: str) -> float:
        """What the evidence says of the run."""
        return self.costs[variant] * self.rows / self.bucket

    def run_s(self, variant: str) -> float:
        """Expected seconds of a run of `variant`: the leader's, as seen live, times the ratio of the two."""
        lead_s = self._lead_s()
        if variant == self.leader:
            return lead_s
        edge = self.contest.edge(variant) if self.leader == self.contest.leader else None
        costs = self.costs
        return lead_s * (costs[variant] / costs[self.leader] if edge is None else edge)

    def _lead_s(self) -> float:
        """Where no run of the leader was seen that was like it, its last ones say by how much the evidence is off."""
        route, live = self.route, self.session.live
        figure = live.figure(self.rows, self.row_bytes)
        if figure is not None and figure.typical is not None:
            return figure.typical * self.rows
        lead_s = self.measured_s(self.leader)
        seen = route.bucket(live.last_rows)
        if live.row_s is not None and self.leader in (others := route.costs.get(seen, {})):
            lead_s *= live.row_s * seen / others[self.leader]
        return lead_s

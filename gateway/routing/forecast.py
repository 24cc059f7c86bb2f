"""Which of the variants that are proven for a batch will have it done first, given what is already under way.

Without load that is the variant that leads (contest.py). While its runner is busy, the batch goes to another
runner if it is done there sooner than the last of those that wait would be here. Runners of one device share its cores:
there, that is done only when runs side by side were measured to answer more rows together than the leader alone. Nobody
but what is proven in the bucket, and the reference, is ever sent anything.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from compilers.targets import TARGETS
from gateway.routing.case import Case
from gateway.routing.contest import Contest
from gateway.routing.latency import ENOUGH
from gateway.routing.ranking import Choice, VersionRoute
from gateway.running.session import Session

if TYPE_CHECKING:
    from gateway.running.runner import Runner

SOONER = 1.10
"""A batch leaves its place in line only for a finish this many times as soon."""

PAYS = 1.05
"""Two runners of one device work side by side when that answers this many times as many rows as the leader alone."""

Usable = Callable[[str, Session], bool]


class Prediction(NamedTuple):
    """What is expected of one variant for a batch, in seconds."""

    ahead_s: float
    """Until its runner could begin."""
    run_s: float
    measured_s: float
    """What the evidence says of the run."""
    edge: float | None
    """What its runs cost as a share of the leader's, as seen live; None where too few were seen."""
    tries: int

    @property
    def finish_s(self) -> float:
        return self.ahead_s + self.run_s


class Forecast:
    """The forecasts of one version. `runner_of(target)` is the runner a session lives in."""

    def __init__(
        self, route: VersionRoute, runner_of: Callable[[str], Runner | None], clock: Callable[[], int]
    ) -> None:
        self._route = route
        self._runner_of = runner_of
        self._clock = clock
        self._contests: dict[tuple[int, int], Contest] = {}
        self._row_bytes = 0

    def choose(
        self, route: VersionRoute, choice: Choice, rows: int, row_bytes: int, waiting: int, usable: Usable
    ) -> Choice:
        """Who answers a batch of `rows` rows, of the `waiting` ones alike; `choice` is what evidence says."""
        costs = route.costs.get(route.bucket(rows))
        if costs is None or choice.variant not in costs:
            return choice
        rivals = [variant for variant in costs if usable(variant, route.sessions[variant])]
        if len(rivals) < 2:
            return choice
        contest = self._contest(route, rows, row_bytes)
        leader = contest.leader if contest.leader in rivals else choice.variant
        case = Case(route, contest, leader, rows, row_bytes)
        session = case.session
        runner = self._runner_of(session.target)
        if runner is None:
            return choice
        rivals.remove(leader)
        run_s = case.run_s(leader)
        tried = self._to_try(case, rivals, run_s)
        if tried is not None:
            return Choice(tried, route.sessions[tried], "tried")
        if runner.inflight and session.live.row_s is not None:
            finish_s = runner.backlog_s(self._clock()) + run_s * -(-max(rows, waiting) // rows)
            other = self._sooner(case, rivals, finish_s)
            if other is not None:
                return other
        return choice if leader == choice.variant else Choice(leader, session, "live")

    def learn(self, route: VersionRoute, choice: Choice, rows: int, row_bytes: int, start_ns: int, end_ns: int) -> None:
        """A batch of `rows` rows, those that filled it up included, ran from `start_ns` to `end_ns`."""
        seconds = (end_ns - start_ns) / 1e9
        live = choice.session.live
        if len(route.sessions) < 2:
            live.add(rows, row_bytes, seconds)
            return
        crowded = self._crowded(route, choice.session.target, (start_ns + end_ns) // 2)
        live.add(rows, row_bytes, seconds, crowded)
        contest = self._contests.get((route.bucket(rows), row_bytes.bit_length()))
        if contest is None or route is not self._route:
            return
        if choice.variant == contest.leader:
            contest.lead_s += seconds
            return
        costs = route.costs.get(route.bucket(rows), {})
        if choice.variant not in costs or contest.leader not in costs:
            return
        lead = route.sessions[contest.leader].live
        figure = lead.figure(rows, row_bytes, crowded) or lead.figure(rows, row_bytes)
        if figure is not None and figure.typical and route.objective == "latency":
            contest.seen(choice.variant, seconds / rows / figure.typical, next(iter(costs)))

    def predictions(self, route: VersionRoute, rows: int, usable: Usable) -> dict[str, Prediction]:
        """What is expected of everybody who may answer `rows` rows like the last ones; the leader comes first."""
        costs = route.costs.get(route.bucket(rows))
        if costs is None:
            return {}
        able = [variant for variant in costs if usable(variant, route.sessions[variant])]
        if not able:
            return {}
        contest = self._contest(route, rows, self._row_bytes)
        leader = contest.leader if contest.leader in able else able[0]
        case = Case(route, contest, leader, rows, self._row_bytes)
        found = {}
        for variant in sorted(able, key=lambda variant: variant != leader):
            runner = self._runner_of(route.sessions[variant].target)
            found[variant] = Prediction(
                0.0 if runner is None else runner.backlog_s(self._clock()),
                case.run_s(variant),
                case.measured_s(variant),
                None if variant == leader else contest.edge(variant),
                contest.tries(variant),
            )
        return found

    def side_by_side(self, route: VersionRoute, leader: str, rival: str, rows: int) -> bool | None:
        """Whether `rival` may run while `leader` does: True on another device, else as measured, None: not yet."""
        one, other = route.sessions[leader], route.sessions[rival]
        if one.target == other.target:
            return False
        if _device(one.target) != _device(other.target):
            return True
        row_bytes = self._row_bytes
        figures = [
            one.live.figure(rows, row_bytes),
            one.live.figure(rows, row_bytes, crowded=True),
            other.live.figure(rows, row_bytes, crowded=True),
        ]
        alone, beside, added = (None if f is None or f.count < ENOUGH else f.typical for f in figures)
        if not alone or not beside or not added:
            return None
        n, m = one.load.instances, other.load.instances
        return n / beside + m / added > PAYS * n / alone

    def _contest(self, route: VersionRoute, rows: int, row_bytes: int) -> Contest:
        """The contest of batches like this one. It begins anew whenever other sessions or other evidence are there."""
        if route is not self._route:
            if route.sessions != self._route.sessions or route.costs != self._route.costs:
                self._contests.clear()
            self._route = route
        self._row_bytes = row_bytes
        bucket = route.bucket(rows)
        kind = (bucket, row_bytes.bit_length())
        contest = self._contests.get(kind)
        if contest is None:
            contest = self._contests[kind] = Contest(next(iter(route.costs[bucket])))
        return contest

    def _to_try(self, case: Case, rivals: list[str], run_s: float) -> str | None:
        """A rival whose turn it is to be tried: one that evidence puts first, or measured faster than the leader is."""
        route, contest = case.route, case.contest
        if route.objective != "latency" or case.leader != contest.leader or not contest.lead_s:
            return None
        preferred = next(iter(case.costs))
        for rival in sorted(rivals, key=contest.tries):
            if rival != preferred and case.measured_s(rival) >= run_s:
                continue
            runner = self._runner_of(route.sessions[rival].target)
            if runner is None or not runner.has_free_slot:
                continue
            if contest.may_try(case.run_s(rival), contest.tries(rival) >= ENOUGH, self._clock()):
                return rival
        return None

    def _sooner(self, case: Case, rivals: list[str], finish_s: float) -> Choice | None:
        """Who has the batch done clearly sooner than in `finish_s`, of those that may run beside the leader."""
        best: Choice | None = None
        now = self._clock()
        for rival in rivals:
            session = case.route.sessions[rival]
            runner = self._runner_of(session.target)
            if session.target == case.session.target or runner is None or not runner.has_free_slot:
                continue
            run_s = case.run_s(rival)
            there_s = runner.backlog_s(now) + run_s
            if there_s * SOONER >= finish_s:
                continue
            allowed = self.side_by_side(case.route, case.leader, rival, case.rows)
            if allowed:
                best, finish_s = Choice(rival, session, "overflow"), there_s
            elif best is None and case.contest.may_try(run_s, allowed is not None, now):
                return Choice(rival, session, "tried")
        return best

    def _crowded(self, route: VersionRoute, target: str, moment_ns: int) -> bool:
        """Whether another runner of the same device ran then."""
        for other in {session.target for session in route.sessions.values()}:
            if other != target and _device(other) == _device(target):
                runner = self._runner_of(other)
                if runner is not None and runner.ran_at(moment_ns):
                    return True
        return False


@lru_cache(64)
def _device(target: str) -> str:
    """What a target's runners share with others. A target that is not in the table has a device of its own."""
    entry = TARGETS.get(target)
    return target if entry is None else entry.device

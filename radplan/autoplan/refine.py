"""Refinement: plan, score, ask for more, plan again, until the score stops rising; the best plan of all wins.

The balance of target and organ weights is searched first, as it sets where the published margin policy ends; then come
margin rounds from the best balance, the published policy's own rounds from the first plan, and direct ascent on the
card from the best of all. The score is not monotone: when a margin round loses, the search goes back to the best plan
with smaller steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from radplan.autoplan.ascent import ascended, score_cost
from radplan.autoplan.policy import POLICIES, SearchState, seen_goals
from radplan.autoplan.protocol import Protocol
from radplan.autoplan.scorecard import Score
from radplan.errors import InputError
from radplan.influence import ForwardModel
from radplan.optim import Goal
from radplan.optim.solvers import ProjectedLBFGS
from radplan.patient import Patient
from radplan.plan import Plan, optimize
from radplan.plan.prescribed import prescribed_quantity

_log = logging.getLogger(__name__)

SHARES = (1.0, 3.0, 10.0)
"""Weights of targets over the published ones that the balance search tries."""
COUNTS = (16.0, 8.0, 8.0, 4.0, 4.0, 2.0)
"""Least width of the band that a dose at a volume is averaged over in each ascent [voxels]; the last holds on."""
GAIN = 0.005
"""Two iterates in a row that gain less than this share of the card's maximum end the search."""


@dataclass(frozen=True)
class Settings:
    """How far a refinement goes.

    Parameters
    ----------
    shares : tuple of float
        Balances tried in the first round.
    margin_rounds : int
        Rounds of the margin policy from the best balance.
    ascents : int
        Most rounds of direct ascent on the card, from the best plan.
    ascent_iterations : int
        Solver iterations of each of them.
    iterations : int
        Solver iterations of each round.
    first_iterations : int
        Solver iterations of the first plan.
    published_rounds : int
        Rounds of the margin policy as published, from the first plan: a refinement ends no lower than these.
    """

    shares: tuple[float, ...] = SHARES
    margin_rounds: int = 4
    ascents: int = 6
    ascent_iterations: int = 60
    iterations: int = 40
    first_iterations: int = 60
    published_rounds: int = 6


@dataclass(frozen=True, eq=False)
class Iterate:
    """One plan of a refinement: what was asked for, what it scored, whether it was the best so far."""

    policy: str
    state: SearchState
    goals: tuple[Goal, ...]
    score: Score
    seconds: float
    best: bool

    def to_spec(self) -> dict[str, Any]:
        """Return plain data for files."""
        return {
            "policy": self.policy,
            "share": self.state.share,
            "shrink": self.state.shrink,
            "weights": dict(self.state.weights or {}),
            "goals": [goal.to_spec() for goal in self.goals],
            "score": self.score.to_spec(),
            "best": self.best,
        }


@dataclass(frozen=True, eq=False)
class Refinement:
    """All iterates of a search, and the best plan.

    Parameters
    ----------
    iterates : tuple of Iterate
        In order, the losing ones too.
    plan : Plan
        The best.
    reason : str
        Why the search ended.
    first : Plan
        The plan of the first iterate.
    notes : tuple of str
        What was left out of patient and card.
    """

    iterates: tuple[Iterate, ...]
    plan: Plan
    reason: str
    first: Plan
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Iterate:
        """The iterate of the best plan."""
        return max(self.iterates, key=lambda iterate: iterate.score.total)

    @property
    def gain(self) -> float:
        """How much the best plan scores more than the first one, over the card's maximum [%]."""
        return 100.0 * (self.best.score.total - self.iterates[0].score.total) / self.best.score.maximum

    def curve(self) -> list[float]:
        """Return the total of each iterate."""
        return [iterate.score.total for iterate in self.iterates]

    def to_spec(self) -> dict[str, Any]:
        """Return plain data for files."""
        return {
            "format": "radplan-refinement",
            "version": 1,
            "reason": self.reason,
            "gain_percent": self.gain,
            "iterates": [iterate.to_spec() for iterate in self.iterates],
            "notes": list(self.notes),
        }


Progress = Callable[[Iterate], None]


def refine(
    patient: Patient,
    protocol: Protocol,
    model: ForwardModel,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Refinement:
    """Return the refinement of a patient on one forward model.

    Parameters
    ----------
    patient : Patient
        With canonical names and helpers, as `understand` gives it.
    protocol : Protocol
        Scorecard, targets and normalisation.
    model : ForwardModel
        Dose of the beams; one model serves all rounds.
    settings : Settings, optional
        How far to go.
    progress : callable, optional
        Told each iterate.
    """
    search = _Search(patient, protocol, model, settings or Settings(), progress)
    search.balance()
    search.margins(search.settings.margin_rounds)
    search.follow(search.settings.published_rounds)
    search.ascend()
    return search.result()


def published(
    patient: Patient,
    protocol: Protocol,
    model: ForwardModel,
    settings: Settings | None = None,
) -> Refinement:
    """Return the search of the published algorithm: margin rounds with its own priorities, nothing else.

    Source: Gao et al. (2025).
    """
    search = _Search(patient, protocol, model, settings or Settings(), None)
    search.run("scorecard_initial", SearchState(), search.settings.first_iterations)
    search.follow(search.settings.published_rounds)
    search.reason = f"{search.settings.published_rounds} rounds of the published policy"
    return search.result()


class _Search:
    """The course of one refinement."""

    def __init__(
        self, patient: Patient, protocol: Protocol, model: ForwardModel, settings: Settings, progress: Progress | None
    ) -> None:
        self.patient = patient
        self.protocol = protocol
        self.model = model
        self.settings = settings
        self.progress = progress
        self.iterates: list[Iterate] = []
        self.reason = "all rounds were made"
        self.best: tuple[Plan, SearchState, Score] | None = None
        self.last: tuple[Plan, SearchState, Score]
        self.begin: tuple[Plan, SearchState, Score]
        if not any(target in patient.structures for target in protocol.targets):
            raise InputError(f"patient {patient.name!r} has no target of the protocol {protocol.name!r}")

    def run(self, policy: str, state: SearchState, iterations: int) -> bool:
        """Make one plan; True when it is the best so far."""
        began = time.perf_counter()
        goals = self._goals(policy, state)
        solver = ProjectedLBFGS(max_iterations=iterations, tolerance=3e-4)
        plan = optimize(
            self.model, goals, self.patient, fractions=self.protocol.fractions, solver=solver, start=state.plan
        )
        return self._judged(policy, state, goals, self._normalised(plan), began)

    def _judged(self, policy: str, state: SearchState, goals: tuple[Goal, ...], plan: Plan, began: float) -> bool:
        """Score a plan and keep what it was; True when it is the best so far."""
        score = self.protocol.scorecard.score(plan)
        better = self.best is None or score.total > self.best[2].total
        self.last = plan, state, score
        if better:
            self.best = self.last
        if not self.iterates:
            self.begin = self.last
        kept = replace(state, plan=None, score=None)
        entry = Iterate(policy, kept, goals, score, time.perf_counter() - began, better)
        self.iterates.append(entry)
        if self.progress is not None:
            self.progress(entry)
        _log.info("%s: %.2f of %.2f", policy, score.total, score.maximum)
        return better

    def balance(self) -> None:
        """Try how much targets weigh against organs, each from the last plan."""
        plan: Plan | None = None
        for number, share in enumerate(self.settings.shares):
            count = self.settings.iterations if number else self.settings.first_iterations
            self.run("scorecard_initial", SearchState(plan=plan, share=share), count)
            plan = self.last[0]

    def margins(self, rounds: int) -> None:
        """Ask for margins below the best plan, half of them after a loss, until two rounds in a row gain little."""
        shrink, idle = 1.0, 0
        for _ in range(rounds):
            plan, state, score = self._best
            if not self.run(
                "dvh_margins", replace(state, plan=plan, score=score, shrink=shrink), self.settings.iterations
            ):
                shrink *= 0.5
            idle = 0 if self._gained(score) else idle + 1
            if idle >= 2:
                return

    def follow(self, rounds: int) -> None:
        """Make margin rounds as published: the first from the first plan, each from the last, whatever it scored."""
        plan, state, score = self.begin
        for _ in range(rounds):
            self.run("dvh_margins", replace(state, plan=plan, score=score), self.settings.iterations)
            plan, state, score = self.last

    def ascend(self) -> None:
        """Climb the card itself from the best plan, until two rounds in a row gain little."""
        idle = 0
        for number in range(self.settings.ascents):
            began = time.perf_counter()
            plan, state, before = self._best
            cost = score_cost(self.patient, self.protocol, plan, before, COUNTS[min(number, len(COUNTS) - 1)])
            plan = self._normalised(ascended(cost, plan, self.settings.ascent_iterations))
            reached = replace(state, plan=plan, score=self.protocol.scorecard.score(plan), shrink=0.0)
            goals = self._goals("dvh_margins", reached)
            self._judged("ascent", state, goals, replace(plan, goals=goals), began)
            idle = 0 if self._gained(before) else idle + 1
            if idle >= 2:
                self.reason = "two rounds in a row gained less than 0.5 % of the card's maximum"
                return

    def _goals(self, policy: str, state: SearchState) -> tuple[Goal, ...]:
        """Return the goals of a policy, of the dose that the prescription means."""
        goals = POLICIES.get(policy)().goals(self.patient, self.protocol, state)
        quantity = prescribed_quantity((), self.patient.target_names, self.model)
        return tuple(replace(goal, quantity=quantity) for goal in seen_goals(goals, self.patient))

    def _gained(self, before: Score) -> bool:
        return self._best[2].total - before.total >= GAIN * before.maximum

    def result(self) -> Refinement:
        """Return what was found."""
        return Refinement(tuple(self.iterates), self._best[0], self.reason, self.begin[0])

    @property
    def _best(self) -> tuple[Plan, SearchState, Score]:
        if self.best is None:
            raise InputError("no plan was made yet")
        return self.best

    def _normalised(self, plan: Plan) -> Plan:
        """Return the plan at the coverage of the protocol, so that scores compare; never hotter than it allows."""
        target = next(name for name in self.protocol.targets if name in self.patient.structures)
        rule, dose = self.protocol.normalise, self.protocol.targets[target]
        scaled = plan.scaled(target, plan.prescribed, **{f"D{rule['percent']:g}": rule["level"] * dose})
        if "hottest" not in rule:
            return scaled
        hot = scaled.metrics(plan.prescribed, [target], ["D1"])[target]["D1"]
        if hot <= rule["hottest"] * dose:
            return scaled
        return plan.scaled(target, plan.prescribed, D1=rule["hottest"] * dose)

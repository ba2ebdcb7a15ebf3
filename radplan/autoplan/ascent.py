"""Direct ascent: a scorecard itself, smoothed, as what a solver climbs.

Each item is a piecewise linear curve of a metric, and each metric has a gradient in the dose. Plans are scored at the
coverage of the protocol, so the factor that brings a dose there is part of the function and of its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from radplan.arrays import Array, accumulator, dtype_name, like, namespace, scalar, weighted_sum
from radplan.autoplan.policy import SearchState, seen_goals, target_goals
from radplan.autoplan.protocol import Protocol
from radplan.autoplan.scorecard import Score, ScoreItem
from radplan.influence import ForwardModel, Variables
from radplan.optim import Goal, Mean, SquaredOverdosing
from radplan.optim.objectives import Maximum, Minimum, Objective, VolumeAtDose
from radplan.optim.objectives.base import Pushes
from radplan.optim.objectives.level import weights_of_ranks
from radplan.optim.points import CostFunction, Point
from radplan.optim.problem import Problem
from radplan.optim.solvers import ProjectedLBFGS
from radplan.optim.terms import Members, Term, bind
from radplan.patient import Patient
from radplan.patient.sampling import sampling_matrix, structure_points
from radplan.plan import Plan

_ROUNDING = 0.06
"""Half width over which a score curve is averaged, over the distance of its ends [1]."""
_BAND = 0.005
"""Half width of the band of ranks about a volume at least [1]."""
_STEP_WIDTH = 0.7
"""Half width of the step at the dose that a volume is judged at [Gy]."""
_EXTREME_WIDTH = 0.3
"""Smoothing of maximum and minimum [Gy]."""
_KEPT = 1e-4
"""Points that a unit of the prescription's own goals costs: enough that what the card does not judge stays sound."""
_HOT = 1.07
"""Dose over the prescription that no part of the body should get, judged or not [1]."""
_POINTS = 60000
"""Most points that a structure is read from; a larger one is read from its voxels."""
BODY = "External"
BODY_WHOLE = "External, whole"
"""The body as a metric sees it, among the members of a cost."""
_HOTTEST_SHARE = 0.01
"""Share of a target whose dose a protocol's ``hottest`` limits [1]."""


@dataclass(frozen=True)
class BandedDose(Objective):
    r"""Dose at a volume averaged over a band of ranks about it, 1 % of the volume and `count` voxels at least.

    Of few voxels a dose at a volume is the dose of one: it has a corner wherever two voxels change places, and a search
    stops there. A wider band has smaller corners, and is a little off.

    Parameters
    ----------
    volume : float
        Fraction of the structure in [0, 1].
    count : float
        Least width of the band [voxels].
    """

    volume: float
    count: float = 1.0

    name: ClassVar[str] = "banded_dose"

    def value(self, values: Array, weights: Array) -> Array:
        return weighted_sum(values, self.gradient(values, weights))

    def gradient(self, values: Array, weights: Array) -> Array:
        xp = namespace(weights)
        half = xp.clip(0.5 * self.count * weighted_sum(weights, weights), min=_BAND, max=0.5)
        low = xp.clip(self.volume - half, min=0.0)
        return weights_of_ranks(values, weights, low, xp.clip(self.volume + half, max=1.0))

    @property
    def pushes(self) -> Pushes:
        return "down"

    def value_unit(self, of: str) -> str:
        return of

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(0.1), cls(0.95, 4.0)]


@dataclass(frozen=True)
class SmoothedCurve:
    r"""A score curve averaged over :math:`\pm h` of its value, h being 6 % of its width: no corners.

    Beyond its worst end the curve goes on falling, so that even a failed item shows the way back.

    Parameters
    ----------
    item : ScoreItem
        Whose points.
    factor : float
        Value of the item, in its own unit, over the objective's value.
    offset : float
        What is added to that: where the ascent begins, the value is then the exact metric's.

    >>> from radplan.autoplan.criteria import Criterion
    >>> item = ScoreItem(Criterion("Rectum", "mean_dose"), ((10, 8), (20, 4), (30, -2)))
    >>> score, slope = SmoothedCurve(item).score(15.0)
    >>> round(score, 9), round(slope, 9)
    (6.0, -0.4)
    """

    item: ScoreItem
    factor: float = 1.0
    offset: float = 0.0

    @cached_property
    def points(self) -> tuple[Any, Any]:
        """Values and scores, drawn out far beyond both ends."""
        x, y = np.asarray(self.item.points, dtype=np.float64).T
        far = 1e3 * (x[-1] - x[0])
        last, first = (y[-1] - y[-2]) / (x[-1] - x[-2]), (y[1] - y[0]) / (x[1] - x[0])
        below, above = (0.0, min(last, 0.0)) if self.item.rises_down else (max(first, 0.0), 0.0)
        x = np.concatenate([[x[0] - far], x, [x[-1] + far]])
        return x, np.concatenate([[y[0] - below * far], y, [y[-1] + above * far]])

    def score(self, value: float) -> tuple[float, float]:
        """Return the score at an objective's value, and its slope there."""
        x, y = self.points
        here = self.factor * value + self.offset
        half = _ROUNDING * (self.item.points[-1][0] - self.item.points[0][0])
        inner = x[(x > here - half) & (x < here + half)]
        knots = np.concatenate([[here - half], inner, [here + half]])
        scores = np.interp(knots, x, y)
        mean = float(np.sum(0.5 * (scores[1:] + scores[:-1]) * np.diff(knots))) / (2.0 * half)
        return mean, self.factor * float(scores[-1] - scores[0]) / (2.0 * half)


@dataclass(frozen=True, eq=False)
class ScoreCost(CostFunction):
    r"""Minus the smoothed total of a card at the coverage of its protocol, :math:`-\sum_i s_i(m_i(c\,d))`.

    The factor c brings the first target to its coverage, or to the hottest dose that is allowed where that is less; it
    depends on the dose, and its gradient is part of this one. Goals of the prescription are added, weighing little.

    Parameters
    ----------
    problem : Problem
        Metrics of the items, of coverage, of heat where it is limited, then the prescription's goals, all of one dose.
    curves : tuple of SmoothedCurve
        One for each item.
    levels : tuple of float
        Of coverage and, where it is limited, of heat [Gy].
    """

    problem: Problem
    curves: tuple[SmoothedCurve, ...]
    levels: tuple[float, ...]

    @property
    def model(self) -> ForwardModel:
        return self.problem.model

    @property
    def variables(self) -> Variables:
        return self.problem.variables

    @property
    def images(self) -> tuple[str, ...]:
        return self.problem.images

    @property
    def start(self) -> Array:
        return self.problem.start

    @property
    def scale(self) -> Array:
        return self.problem.scale

    @property
    def rulers(self) -> tuple[Term, ...]:
        """The terms that the level of the dose follows from: coverage and, where it is limited, heat."""
        return self.problem.terms[len(self.curves) : len(self.curves) + len(self.levels)]

    def from_images(self, x: Array, images: Mapping[str, Array]) -> Point:
        evaluation = self.problem.evaluation(images)
        count = len(self.curves)
        terms, rulers = self.problem.terms, self.rulers
        values = evaluation[terms[0].quantity]
        factor, ruler, bend = 1.0, rulers[0], values
        for number, (term, level) in enumerate(zip(rulers, self.levels, strict=True)):
            measured, gradient = term.cost(values)
            wanted = level / max(scalar(measured), 1e-6)
            if number == 0 or wanted < factor:
                factor, ruler, bend = wanted, term, gradient * (-(wanted**2) / level)
        scaled = values * factor
        total, by_factor = 0.0, 0.0
        cotangents: dict[Any, Array] = {}
        for number, term in enumerate(terms):
            if count <= number < count + len(rulers):
                continue
            measured, gradient = term.cost(scaled)
            if number < count:
                score, slope = self.curves[number].score(scalar(measured))
                total, slope = total - score, -slope
            else:
                total, slope = total + term.weight * scalar(measured), term.weight
            if slope != 0.0:
                seen = term.course_values(values[0, :])
                by_factor += slope * scalar(namespace(seen).sum(gradient[0, :] * seen))
                term.add_cotangent(cotangents, gradient, values, slope * factor)
        ruler.add_cotangent(cotangents, bend, values, by_factor)
        return Point(self, x, images, like(total, values, accumulator(values)), evaluation, cotangents)

    def check_finite(self, x: Array | Point) -> None:
        self.problem.check_finite(x)


def score_cost(
    patient: Patient,
    protocol: Protocol,
    plan: Plan,
    score: Score,
    count: float = 1.0,
    judged: Plan | None = None,
    sampled: Mapping[str, Members] | None = None,
) -> ScoreCost:
    """Return the cost whose descent is the ascent on a card, for the model of a plan.

    Parameters
    ----------
    patient : Patient
        With canonical names and helpers.
    protocol : Protocol
        Card, coverage and prescription.
    plan : Plan
        Whose model and dose are meant.
    score : Score
        What it scores: which items can be judged.
    count : float
        Least width of the band that a dose at a volume is averaged over [voxels].
    judged : Plan, optional
        What the score was read from, where that is the same plan in more voxels: the metrics are then those of it.
    sampled : mapping of str to (voxels, shares), optional
        What stands for the structures of `kept_goals` and, as ``"External, whole"``, for the body, in a model that does
        not hold all of their voxels.
    """
    model, quantity = plan.model, plan.prescribed
    voxels = np.asarray(model.voxels)
    goals: list[Goal] = []
    curves: list[SmoothedCurve] = []
    for entry in score.items:
        smooth = _smooth_metric(entry.item, patient, protocol, count)
        if smooth is not None:
            goals.append(Goal(_whole(entry.item.criterion.structure), smooth[0], quantity=quantity))
            curves.append(SmoothedCurve(entry.item, smooth[1]))
    target = next(name for name in protocol.targets if name in patient.structures)
    rule, dose = protocol.normalise, protocol.targets[target]
    goals.append(Goal(_whole(target), BandedDose(rule["percent"] / 100.0, count), quantity=quantity))
    levels = [rule["level"] * dose]
    if "hottest" in rule:
        goals.append(Goal(_whole(target), BandedDose(_HOTTEST_SHARE, count), quantity=quantity))
        levels.append(rule["hottest"] * dose)
    members: dict[str, Members] = {}
    for structure in dict.fromkeys(goal.structure for goal in goals if goal.structure not in (sampled or {})):
        members[structure] = _members(patient, _whole_name(structure), model)
    kept = kept_goals(patient, protocol)
    names = [goal.structure for goal in kept]
    if sampled is None:
        members |= {
            name: patient.structure_weights(name, model.grid, voxels=voxels, overlap_with=names) for name in names
        }
        members[BODY_WHOLE] = patient.structure_weights(BODY, model.grid, voxels=voxels)
    else:
        members |= sampled
    goals += [replace(goal, weight=_KEPT * goal.weight, quantity=quantity) for goal in kept]
    goals.append(_no_hot_spots(patient, protocol, target, quantity))
    cost = ScoreCost(_problem(plan, goals, members), tuple(curves), tuple(levels))
    return _as_read(cost, plan, score, plan if judged is None else judged)


def kept_goals(patient: Patient, protocol: Protocol) -> tuple[Goal, ...]:
    """Return the prescription's own goals, which keep sound what a card does not judge."""
    return seen_goals(target_goals(patient, protocol, SearchState()), patient)


def _members(patient: Patient, name: str, model: ForwardModel) -> Members:
    """Return voxels and weights of a whole structure, or the points that metrics read where there are few enough."""
    host = np.asarray(model.voxels)
    if patient.membership == "volume" and name != BODY:
        index, weights = structure_points(patient.structures[name], model.grid)
        if weights.size <= _POINTS:
            matrix = sampling_matrix(index, model.grid, host)
            used = np.flatnonzero(np.asarray(abs(matrix).sum(axis=0)).reshape(-1) > 0.0)
            return host[used], weights / weights.sum(), matrix[:, used]
    return patient.structure_weights(name, model.grid, voxels=host)


def _problem(plan: Plan, goals: Sequence[Goal], members: Mapping[str, Members]) -> Problem:
    """Return a problem whose terms read points of structures where their members say so."""
    plain = {name: (entry[0], entry[1] if len(entry) == 2 else None) for name, entry in members.items()}
    problem = Problem(plan.model, goals, None, plan.fractions, weights=plain)
    problem.scale  # noqa: B018  Why: sizes of variables are told by voxels, and kept with the copy.
    problem = copy(problem)
    dtype = dtype_name(problem.model.forward(problem.start, problem.images)[problem.images[0]])
    quantity = goals[0].quantity
    keyed = {(name, False): entry for name, entry in members.items()}
    additive = {quantity: plan.quantity(quantity).additive}
    problem.terms = bind(problem.goals, keyed, problem.model, plan.fractions, dtype, additive)
    return problem


def _as_read(cost: ScoreCost, plan: Plan, score: Score, judged: Plan) -> ScoreCost:
    """Return a cost whose metrics are, at a plan, those that its score reads: bands differ from ranks, grids differ."""
    target, quantity = cost.problem.terms[len(cost.curves)], plan.prescribed
    values = cost.problem.evaluation(cost.model.forward(like(plan.x, cost.start), cost.images))[target.quantity]
    smooth = [scalar(term.cost(values)[0]) for term in cost.problem.terms]
    exact = {entry.item.label: entry.value for entry in score.items}
    curves = [
        replace(curve, offset=exact[curve.item.label] - curve.factor * value)
        for curve, value in zip(cost.curves, smooth, strict=False)
    ]
    name = _whole_name(target.structure)
    volumes = [term.objective.parameters()["volume"] for term in cost.rulers]
    metrics = [f"D{100.0 * float(volume):g}" for volume in volumes if isinstance(volume, float)]
    read = judged.metrics(quantity, [name], metrics)[name]
    levels = [
        level * value / read[metric]
        for level, value, metric in zip(cost.levels, smooth[len(curves) :], metrics, strict=False)
    ]
    return replace(cost, curves=tuple(curves), levels=tuple(levels))


def ascended(cost: ScoreCost, plan: Plan, iterations: int) -> Plan:
    """Return the plan where an ascent from another one ends; its level is not brought to the protocol's yet."""
    solver = ProjectedLBFGS(max_iterations=iterations, tolerance=1e-5)
    solution = solver.solve(cost, x0=like(plan.x, cost.start))
    return replace(plan, x=np.asarray(solution.x, dtype=np.float64), solution=None, normalization=None)


def _no_hot_spots(patient: Patient, protocol: Protocol, target: str, quantity: str) -> Goal:
    """Return the goal that costs a point when 1 % of the target's volume, anywhere, is 10 Gy too hot."""
    weight = patient.structures[BODY].volume / patient.structures[target].volume
    return Goal(_whole(BODY), SquaredOverdosing(_HOT * protocol.prescription), weight, quantity)


def _whole(structure: str) -> str:
    """Return what a structure is called where it is seen whole, as a metric sees it."""
    return f"{structure}, whole"


def _whole_name(whole: str) -> str:
    return whole.removesuffix(", whole")


def _smooth_metric(
    item: ScoreItem, patient: Patient, protocol: Protocol, count: float
) -> tuple[Objective, float] | None:
    """Return the smoothed metric of an item, and its unit over the metric's; None where it has no gradient here."""
    criterion = item.criterion
    amount, cc = criterion.input or 0.0, patient.structures[criterion.structure].volume / 1000.0
    prescription = protocol.scorecard.prescription
    share = min(amount / 100.0 if criterion.input_unit == "%" else amount / cc, 1.0)
    if criterion.metric == "volume_at_dose":
        step = VolumeAtDose(criterion.dose_level(prescription), _STEP_WIDTH)
        return step, criterion.own_units(prescription, cc)
    known: Sequence[tuple[str, Objective]] = (
        ("mean_dose", Mean(0.0)), ("max_dose", Maximum(_EXTREME_WIDTH)), ("min_dose", Minimum(_EXTREME_WIDTH)),
        ("dose_at_volume", BandedDose(share, count)), ("dose_at_subvolume", BandedDose(1.0 - share, count)),
    )  # fmt: skip
    chosen = dict(known).get(criterion.metric)
    return None if chosen is None else (chosen, criterion.own_units(prescription, cc))

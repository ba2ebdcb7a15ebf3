"""Pareto fronts: plans of one problem under many weights, and the way from wishes to a plan among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radplan.arrays import to_numpy
from radplan.beams.beam import Beams
from radplan.errors import InputError, UnknownNameError
from radplan.influence import ForwardModel
from radplan.influence.given import on_device
from radplan.optim.goals import Goal
from radplan.optim.problem import Problem
from radplan.optim.solvers import ProjectedLBFGS, Solution, Status
from radplan.optim.tradeoff import WeightSweep, serpentine
from radplan.patient.patient import Patient
from radplan.plan.course import Plan
from radplan.plan.planning import DEFAULT_FRACTIONS

Floats = NDArray[np.float64]

_POLISH = 10
"""Iterations that a plan between those of a front is given."""


@dataclass(frozen=True, eq=False)
class Front:
    """Plans none of which can be bettered in one goal without loss in another, to within the sweep's tolerance.

    Made by `radplan.pareto`.

    Parameters
    ----------
    problem : Problem
        The goals with their own weights.
    model : ForwardModel
        The model, on all its voxels.
    patient : Patient
        The patient.
    beams : Beams or None
        Of the model.
    factors : array of shape (plans, goals)
        By which the weights were multiplied.
    x : array of shape (plans, variables)
        Variables of each plan.
    values : array of shape (plans, goals)
        Each goal's objective, unweighted.
    iterations : tuple of int
        What each plan took.
    """

    problem: Problem
    model: ForwardModel
    patient: Patient
    beams: Beams | None
    factors: Floats
    x: Floats
    values: Floats
    iterations: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def labels(self) -> tuple[str, ...]:
        """Short names of the goals, the columns of `values`."""
        return tuple(goal.label for goal in self.problem.goals)

    @property
    def dominated(self) -> NDArray[np.bool_]:
        """Which plans another one betters in one goal without loss in any, ``(plans,)``."""
        no_worse = np.all(self.values[None, :, :] <= self.values[:, None, :], axis=2)
        better = np.any(self.values[None, :, :] < self.values[:, None, :], axis=2)
        dominated: NDArray[np.bool_] = np.any(no_worse & better, axis=1)
        return dominated

    def plan(self, index: int) -> Plan:
        """Return one of the plans; its goals have the weights that led to it."""
        if not -len(self) <= index < len(self):
            raise InputError(f"the front has plans 0 to {len(self) - 1}, got {index}")
        return self._plan(self.x[index], np.asarray(self.factors[index]), None)

    def navigate(self, wishes: Mapping[str, float]) -> Plan:
        """Return the plan that comes nearest to wishes: a combination of the front's, and ten iterations from there.

        Of the convex combinations of plans, that one is taken whose goals' values exceed the wishes least, in shares of
        the ranges that the front covers; what is not wished for counts a hundredth. Values of convex goals at the
        combination of plans are no larger than the combination of their values.

        Parameters
        ----------
        wishes : mapping of str to float
            Largest values wished for goals [unit of each goal's objective], by the structure, where it has one goal, or
            by the goal's label, as `labels` has them.

        Raises
        ------
        UnknownNameError
            When no goal is called so.
        InputError
            When nothing is wished for, a structure has several goals, or a wish is not finite.
        """
        shares = self._shares(self._columns(wishes))
        x = on_device(shares @ self.x, self.model)
        # Why: at the weights of the combination the front is flat, so few iterations along it move little across it.
        factors = shares @ self.factors
        solution = ProjectedLBFGS(max_iterations=_POLISH).solve(self.problem.weighted(list(factors)), x)
        return self._plan(to_numpy(solution.x), factors, solution)

    def _columns(self, wishes: Mapping[str, float]) -> dict[int, float]:
        if not wishes:
            raise InputError(f"wish for something: a largest value of {', '.join(map(repr, self.labels))}")
        columns = {}
        for name, wish in wishes.items():
            meant = [column for column, goal in enumerate(self.problem.goals) if name in (goal.label, goal.structure)]
            if not meant:
                known = [*self.labels, *(goal.structure for goal in self.problem.goals)]
                raise UnknownNameError("goal of the front", name, known)
            if len(meant) > 1:
                raise InputError(f"{name!r} has {len(meant)} goals: wish by one of the labels {self.labels}")
            if not np.isfinite(wish):
                raise InputError(f"the wish for {name!r} must be a finite number, got {wish!r}")
            columns[meant[0]] = float(wish)
        return columns

    def _shares(self, columns: Mapping[int, float]) -> Floats:
        """Return the convex combination ``(plans,)`` whose values exceed the wishes least: a small linear program."""
        from scipy.optimize import linprog

        ranges = np.ptp(self.values, axis=0)
        scaled = self.values / np.where(ranges > 0.0, ranges, 1.0)
        plans, goals = scaled.shape
        wished = np.asarray(sorted(columns))
        limits = np.asarray([columns[column] for column in wished]) / np.where(ranges > 0.0, ranges, 1.0)[wished]
        # Variables: the shares, and how far each wish is exceeded.
        cost = np.concatenate([0.01 * scaled.mean(axis=1) / goals, np.ones(wished.size)])
        rows = np.hstack([scaled[:, wished].T, -np.eye(wished.size)])
        total = np.concatenate([np.ones(plans), np.zeros(wished.size)])[None, :]
        solved: Any = linprog(cost, A_ub=rows, b_ub=limits, A_eq=total, b_eq=[1.0], bounds=(0.0, None), method="highs")
        shares = np.maximum(np.asarray(solved.x[:plans], dtype=np.float64), 0.0)
        return np.asarray(shares / shares.sum())

    def _plan(self, x: Any, factors: Floats, solution: Solution | None) -> Plan:
        goals = self.problem.weighted(list(factors)).goals
        if solution is None:
            values = self.problem.goal_values(on_device(x, self.model))
            value = float(np.dot([goal.weight for goal in goals], values))
            solution = Solution(x, value, Status.CONVERGED, (), value)
        return Plan(
            x=np.asarray(x, dtype=np.float64),
            model=self.model,
            patient=self.patient,
            fractions=self.problem.fractions,
            goals=goals,
            solution=solution,
            given_beams=self.beams,
        )


def pareto(
    model: ForwardModel,
    goals: Sequence[Goal],
    patient: Patient,
    fractions: int | None = None,
    factors: ArrayLike | None = None,
    *,
    levels: int = 5,
    step: float = 3.0,
    sweep: WeightSweep | None = None,
    beams: Beams | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Front:
    """Return the front of plans that balance the goals differently, each optimal for its weights.

    Parameters
    ----------
    model : ForwardModel
        What gives dose; linear, such as a `Dij`.
    goals : sequence of Goal
        Two or more convex ones with a weight > 0; their weights are the middle of the front.
    patient : Patient
        Whose structures the goals name.
    fractions : int, optional
        Number of fractions; the patient's, or 30, when left out.
    factors : array of shape (plans, goals), optional
        By which the weights are multiplied, neighbours next to each other; left out: all combinations of `levels`
        powers of `step` about 1 for every goal but the first.
    levels : int
        Levels of each goal's weight, >= 1.
    step : float
        From one level to the next, > 1.
    sweep : WeightSweep, optional
        How optima are searched for.
    beams : Beams, optional
        The beams of the model, for figures, where it does not know them itself.
    progress : callable, optional
        Told the number of plans ready, and of all.

    Raises
    ------
    InputError
        When there are fewer than two goals, a weight is 0, or the factors do not fit.
    """
    if len(goals) < 2 or any(goal.weight == 0.0 for goal in goals):
        raise InputError("a Pareto front needs two or more goals with a weight > 0")
    if factors is None:
        if levels < 1 or not step > 1.0:
            raise InputError(f"levels must be >= 1 and step > 1, got {levels!r} and {step!r}")
        powers = [float(step) ** (level - (levels - 1) / 2.0) for level in range(levels)]
        rows = np.asarray([(1.0, *row) for row in serpentine([powers] * (len(goals) - 1))])
    else:
        rows = np.asarray(factors, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(goals):
            raise InputError(f"factors must have shape (plans, {len(goals)}), got {rows.shape}")
    count = fractions if fractions is not None else (patient.fractions or DEFAULT_FRACTIONS)
    problem = Problem(model, goals, patient, count)
    optima = []
    for optimum in (sweep or WeightSweep()).optima(problem, rows.tolist()):
        optima.append(optimum)
        if progress is not None:
            progress(len(optima), rows.shape[0])
    x = np.stack([to_numpy(optimum.x) for optimum in optima]).astype(np.float64)
    values = np.asarray([optimum.values for optimum in optima])
    return Front(problem, model, patient, beams, rows, x, values, tuple(optimum.iterations for optimum in optima))

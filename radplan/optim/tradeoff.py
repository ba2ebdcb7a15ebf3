"""Many optima of one problem under changing weights, each from its neighbour with all that was learned of curvature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from radplan.arrays import Array, like, namespace, scalar, weighted_sum
from radplan.errors import InputError
from radplan.kernels.threads import one_blas_thread
from radplan.optim.points import Line, Point
from radplan.optim.problem import Problem
from radplan.optim.solvers.memory import Box, Memory, newton_step

_TRIALS = 12
"""Largest number of trials on one line."""
_PATIENCE = 2
"""Iterations in a row that must promise and bring little before a plan counts as done."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A step ``(variables,)`` and how each goal's unweighted gradient changed along it, ``(goals, variables)``.

    The change of the cost's gradient is their weighted sum for *any* weights, so that curvature learned under some
    weights serves under all.
    """

    step: Array
    changes: Array


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where the search for one set of weights ended.

    Parameters
    ----------
    x : array of shape (variables,)
        On the device of the model.
    values : tuple of float
        Each goal's objective, unweighted.
    iterations : int
        Number of iterations it took.
    """

    x: Array
    values: tuple[float, ...]
    iterations: int


@dataclass(frozen=True)
class WeightSweep:
    r"""Projected quasi-Newton searches through a sequence of weights of convex goals.

    Each search starts at the last optimum with the pairs of all earlier ones, whose gradient changes are kept goal by
    goal and summed anew with the weights at hand. An iteration costs one forward, and one adjoint for the voxels that
    each goal acts on. A search ends when the quasi-Newton model promises, and the last step brought, less than
    `tolerance` of the cost.

    Parameters
    ----------
    tolerance : float
        Share of the cost, > 0.
    memory : int
        Largest number of pairs, >= 1.
    max_iterations : int
        Of each search, >= 1.

    Raises
    ------
    InputError
        When an option is out of range.

    >>> WeightSweep(tolerance=1e-3).memory
    40
    """

    tolerance: float = 1e-4
    memory: int = 40
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < 1.0:
            raise InputError(f"tolerance of a sweep must lie in (0, 1), got {self.tolerance!r}")
        if min(self.memory, self.max_iterations) < 1:
            raise InputError("memory and max_iterations of a sweep must be >= 1")

    def optima(
        self, problem: Problem, factors: Sequence[Sequence[float]], x0: Array | None = None
    ) -> Iterator[Optimum]:
        """Yield the optimum for each row of factors on the weights of the problem's goals, in order.

        Parameters
        ----------
        problem : Problem
            Convex goals on a linear model whose variables have bounds only; without constraints.
        factors : sequence of sequence of float
            One row for each optimum, one factor >= 0 for each goal.
        x0 : array of shape (variables,), optional
            Where the first search starts.

        Raises
        ------
        InputError
            When the problem has constraints, is not linear, or minimises the worst scenario of the sum.
        """
        if problem.constraints or not problem.linear or not problem.variables.separable or problem.robust is not None:
            raise InputError("a sweep of weights needs a linear model with bounds only, goals only, and no robust=")
        x = problem.start if x0 is None else x0
        pairs: list[Pair] = []
        for row in factors:
            with one_blas_thread():
                optimum, pairs = self._search(problem.weighted(row), x, pairs)
            x = optimum.x
            yield optimum

    def _search(self, problem: Problem, x: Array, pairs: list[Pair]) -> tuple[Optimum, list[Pair]]:
        weights = [term.weight for term in problem.terms]
        box = Box.of(problem.variables, x)
        point = problem.at(x)
        slopes = problem.goal_gradients(point)
        empty = Memory(min(self.memory, problem.variables.count), problem.scale)
        memory = self._recalled(problem, weights, pairs)
        quiet, iterations = 0, 0
        while iterations < self.max_iterations and quiet < _PATIENCE:
            gradient, value = _combined(slopes, weights), scalar(point.value)
            # Why: a projected quasi-Newton step may not descend; one along the scaled gradient then does.
            trials = (_trial(problem, point, gradient, known, box) for known in (memory, empty))
            reached, promised = next((trial for trial in trials if trial is not None), (None, 0.0))
            if reached is None:
                break
            after = replace(reached, x=problem.variables.project(reached.x))
            slopes_after = problem.goal_gradients(after)
            pairs = [*pairs, Pair(after.x - point.x, slopes_after - slopes)][-self.memory :]
            memory = _with_pair(memory, pairs[-1], weights)
            gained = value - scalar(after.value)
            point, slopes = after, slopes_after
            quiet = quiet + 1 if max(0.5 * promised, gained) <= self.tolerance * abs(value) else 0
            iterations += 1
        return Optimum(point.x, problem.goal_values(point), iterations), pairs

    def _recalled(self, problem: Problem, weights: Sequence[float], pairs: Sequence[Pair]) -> Memory:
        memory = Memory(min(self.memory, problem.variables.count), problem.scale)
        for pair in pairs:
            memory = _with_pair(memory, pair, weights)
        return memory


def serpentine(levels: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """Return all combinations of levels such that neighbours in the list differ in one place, by one level.

    >>> serpentine([[1, 2], [10, 20]])
    [(1, 10), (1, 20), (2, 20), (2, 10)]
    """
    rows: list[tuple[float, ...]] = [()]
    for own in levels:
        rows = [
            (*row, level) for number, row in enumerate(rows) for level in (own if number % 2 == 0 else tuple(own)[::-1])
        ]
    return rows


def _combined(slopes: Array, weights: Sequence[float]) -> Array:
    xp = namespace(slopes)
    return xp.matmul(like(list(weights), slopes), slopes)


def _with_pair(memory: Memory, pair: Pair, weights: Sequence[float]) -> Memory:
    """Return the memory with a pair under some weights, left as it was where the curvature along it is not positive."""
    change = _combined(pair.changes, weights)
    product, size = (scalar(weighted_sum(part, change)) for part in (pair.step, change))
    return memory.with_pair(pair.step, change, product) if product > 0.0 and size > 0.0 else memory


def _trial(problem: Problem, point: Point, gradient: Array, memory: Memory, box: Box) -> tuple[Point, float] | None:
    """Return the next point and the fall of the cost that the slope promised, or None where no step descends."""
    step = newton_step(memory, point.x, gradient, box, problem.variables)
    value, promised = scalar(point.value), -scalar(weighted_sum(gradient, step))
    if not (math.isfinite(promised) and promised > 1e-12 * abs(value)):
        return None
    limit = max(scalar(box.longest(point.x, step)), 1.0)
    reached = _line_minimum(problem.along(point, step), value, -promised, limit)
    return None if reached is None else (reached, promised)


def _line_minimum(line: Line, value: float, slope: float, limit: float) -> Point | None:
    """Return the point of a line where its slope is down to a tenth, by secants from t = 1; None if none falls."""
    low, low_slope, high, high_slope = 0.0, slope, math.inf, math.nan
    best: Point | None = None
    best_value, t = value, 1.0
    for _ in range(_TRIALS):
        point = line.at(t)
        now, now_slope = scalar(point.value), scalar(line.slope(point))
        if now < best_value:
            best, best_value = point, now
        if now < value and (abs(now_slope) <= -0.1 * slope or (now_slope < 0.0 and t >= limit)):
            return point
        if now_slope < 0.0 and now <= value:
            low, low_slope = t, now_slope
        else:
            high, high_slope = t, now_slope
        if math.isinf(high):
            t = min(4.0 * t, limit)
            continue
        rise = high_slope - low_slope
        t = low - low_slope * (high - low) / rise if rise > 0.0 else 0.5 * (low + high)
        t = min(max(t, low + 0.05 * (high - low)), high - 0.05 * (high - low))
    return best

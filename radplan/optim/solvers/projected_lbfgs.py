"""A limited-memory quasi-Newton method with bounds that stays on the device: the default solver."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from radplan.arrays import Array, all_finite, like, namespace, to_numpy, weighted_sum
from radplan.errors import CalculationError, InputError
from radplan.kernels.threads import one_blas_thread
from radplan.optim.points import CostFunction, Line, Point
from radplan.optim.settling import Settling
from radplan.optim.solvers.base import (
    SOLVERS,
    Callback,
    Progress,
    Solution,
    Solver,
    Status,
    checked_value,
    first_point,
    last_value,
    refuse_constraints,
)
from radplan.optim.solvers.memory import Box, Memory, bent_step, coupled_step, newton_step

_WINDOW = 10
"""Iterations over which the relative decrease is averaged before it is called converged."""
_REFRESH = 40
"""Iterations after which the images are calculated anew, to shed the rounding of their updates."""
_MEASURED = (8, 20, 50)
_MEASURED_EVERY = 100
"""Iterations after which second derivatives within groups are calculated anew: these, then every so many."""
_SLOW = 10.0
"""How many times the tolerance the cost may still fall by where the plan no longer changes."""
_LITTLE = 1e-3
"""Share of the first cost below which the fall of the cost is not judged by the cost itself."""
_TRIALS = 20
"""Largest number of trials on one line."""
_NOISE = 1e-9
"""Rise of the cost, relative, that is rounding and not ascent."""
_ROUNDING = 1e-15
"""Fall of the cost, relative, that no arithmetic can show."""


@SOLVERS.register
@dataclass(frozen=True)
class ProjectedLBFGS(Solver):
    r"""Projected L-BFGS with diagonal scaling and, on linear models, an exact line search.

    Each iteration minimises the quasi-Newton model over the variables that are not held at a bound, projects the step
    into the bounds and searches the segment, beyond its end where that stays feasible. On a linear model that is one
    forward and one adjoint per iteration, whatever the number of trials: images along a line are known from its ends.
    All vectors stay on the device.

    Where the model is not linear, or variables hold each other (leaves that must not touch), steps are projected with
    the variables' own `project` and shortened until the cost falls: one forward for each trial, one adjoint for each
    iteration. The first step moves no variable by more than its typical size, `Variables.scale`.

    At a kink, as of a linear `Mean` whose reference is among the doses, no step along the gradient may descend although
    others would: the search then ends as stalled. Smooth goals, such as a squared one, have no kinks.

    Parameters
    ----------
    max_iterations : int
        Largest number of iterations, >= 1.
    tolerance : float
        Converged when the cost falls by less than this fraction per iteration, in the mean over ten; > 0.
    plan_change : float
        Converged, too, when the plan no longer changes: no dose-volume point (D2 to D98) of a structure with a goal
        moved by more than this share of the largest one in ten iterations, and again in the next ten, while the cost
        fell by less than ten times `tolerance`; in [0, 1). On linear models; 0 looks at the cost alone.
    memory : int
        Number of curvature pairs, >= 1.
    slope_ratio : float
        The line search ends where the slope is this fraction of the first one, in (0, 1).
    blocks : bool
        Whether second derivatives within `Variables.groups`, such as the spots of a ray, are the first metric of the
        quasi-Newton method from iteration 8 on, where the model knows them; with the newest six pairs.

    Raises
    ------
    InputError
        When an option is out of range.

    Source: Byrd, Lu, Nocedal and Zhu, SIAM J. Sci. Comput. 16 (1995) 1190 (compact subspace step); Bertsekas, SIAM J.
    Control Optim. 20 (1982) 221 (projection).

    >>> ProjectedLBFGS(max_iterations=100).memory
    20
    """

    max_iterations: int = 500
    tolerance: float = 1e-5
    plan_change: float = 0.001
    memory: int = 20
    slope_ratio: float = 0.2
    blocks: bool = True

    name = "lbfgs"

    def __post_init__(self) -> None:
        for key, low in (("max_iterations", 1), ("memory", 1)):
            value = self.__dict__[key]
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(f"lbfgs: {key} must be a whole number >= {low}, got {value!r}")
        if not 0.0 < self.tolerance < 1.0 or not 0.0 < self.slope_ratio < 1.0:
            given = (self.tolerance, self.slope_ratio)
            raise InputError(f"lbfgs: tolerance and slope_ratio must lie in (0, 1), got {given}")
        if not 0.0 <= self.plan_change < 1.0:
            raise InputError(f"lbfgs: plan_change must lie in [0, 1), got {self.plan_change!r}")

    def solve(self, problem: CostFunction, x0: Array | None = None, callback: Callback | None = None) -> Solution:
        refuse_constraints(self, problem)
        with one_blas_thread():
            return self._search(problem, first_point(problem, x0), callback)

    def _search(self, problem: CostFunction, x: Array, callback: Callback | None) -> Solution:
        history: list[float] = []
        start_value, status, reason = math.nan, Status.ITERATION_LIMIT, ""
        settling = Settling(self.plan_change)
        try:
            box, empty = Box.of(problem.variables, x), Memory(min(self.memory, problem.variables.count), problem.scale)
            point, memory = problem.at(x), empty
            start_value = value = checked_value(problem, point, _floats(point.value)[0])
            find = self._step if problem.linear and problem.variables.separable else self._projected_step
            for iteration in range(1, self.max_iterations + 1):
                step = find(problem, point, value, memory, box) or find(problem, point, value, empty, box)
                if step is None:
                    status = Status.CONVERGED if self._is_stationary(problem, point, value) else Status.STALLED
                    break
                memory = step.remembered_by(memory, point)
                value = checked_value(problem, step.point, step.value)
                point, x = step.point, step.point.x
                history.append(value)
                if problem.linear and iteration % _REFRESH == 0:
                    point = problem.at(x)
                if self._measures(problem, iteration):
                    memory = memory.with_metric(problem.curvature(point))
                if callback is not None and callback(Progress(iteration, value, x)) is True:
                    status = Status.STOPPED
                    break
                if self.plan_change > 0.0 and problem.linear and iteration % _WINDOW == 0:
                    settling = settling.after(problem.dose_volume_points(point))
                reason = self._converged(history, start_value, settling)
                if reason:
                    status = Status.CONVERGED
                    break
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        value, status = last_value(problem, x, status)
        start_value = start_value if math.isfinite(start_value) else value
        return Solution(x, value, status, tuple(history), start_value, reason=reason)

    def _measures(self, problem: CostFunction, iteration: int) -> bool:
        """Say whether second derivatives within groups are looked at after an iteration."""
        if not self.blocks or problem.variables.groups is None or not (problem.linear and problem.variables.separable):
            return False
        return iteration in _MEASURED or iteration % _MEASURED_EVERY == 0

    def _step(self, problem: CostFunction, point: Point, value: float, memory: Memory, box: Box) -> _Step | None:
        """Return the next point, or None where the line from this one does not descend."""
        direction = None
        if memory.metric is not None:
            direction = bent_step(memory, point.x, point.gradient, box, problem.variables)
        if direction is None:
            memory = memory if memory.metric is None else memory.with_metric(None)
            direction = newton_step(memory, point.x, point.gradient, box, problem.variables)
        line = problem.along(point, direction)
        trial = line.at(1.0)
        slope, limit, now, now_slope = _floats(
            weighted_sum(point.gradient, direction), box.longest(point.x, direction), trial.value, line.slope(trial)
        )
        if not math.isfinite(slope):
            _check_gradient(problem, point)
        if not slope < -_ROUNDING * abs(value):
            return None
        found = _search_line(line, _Step(trial, now, now_slope, 1.0), value, slope, max(limit, 1.0), self.slope_ratio)
        if found is None:
            _check_line(problem, line)
            return None
        x = problem.variables.project(found.point.x)
        return replace(found, point=replace(found.point, x=x), gained_slope=found.slope - slope)

    def _projected_step(
        self, problem: CostFunction, point: Point, value: float, memory: Memory, box: Box
    ) -> _Step | None:
        """Return the next point on the arc of projected steps, or None where it does not descend."""
        project = problem.variables.project
        step, t = coupled_step(memory, point.x, point.gradient, problem.variables), 1.0
        trial: Point | None = None
        for _ in range(_TRIALS):
            x = project(point.x + t * step)
            promised = _floats(weighted_sum(point.gradient, x - point.x))[0]
            if not math.isfinite(promised):
                _check_gradient(problem, point)
                return None
            if promised >= -_ROUNDING * abs(value):
                t *= 0.1
                continue
            trial = problem.at(x)
            now = _floats(trial.value)[0]
            if now <= value + 1e-4 * promised:
                return _Step(trial, now, math.nan, t, gained_slope=math.inf)
            bend = now - value - promised
            t *= min(max(-0.5 * promised / bend, 0.1), 0.5) if math.isfinite(bend) else 0.1
        if trial is not None:
            checked_value(problem, trial, _floats(trial.value)[0])
        return None

    def _converged(self, history: list[float], start_value: float, settling: Settling) -> str:
        """Return why a search counts as converged, in words; empty where it does not."""
        if history[-1] == 0.0:
            return "every goal is met"
        fall = (history[-1 - _WINDOW] - history[-1]) / _WINDOW if len(history) > _WINDOW else math.inf
        if fall <= self.tolerance * abs(history[-1]):
            return f"the cost falls by less than {self.tolerance:g} of it per iteration"
        # Why: a plan may also change slowly and on and on, which the cost tells, unless that is next to nothing.
        if settling.settled and fall <= _SLOW * self.tolerance * max(abs(history[-1]), _LITTLE * abs(start_value)):
            moved = f"{100.0 * self.plan_change:g} % of the largest"
            return f"no dose-volume point of a goal moves by more than {moved} in {_WINDOW} iterations"
        return ""

    def _is_stationary(self, problem: CostFunction, point: Point, value: float) -> bool:
        """Say whether the scaled gradient, projected, promises less than the tolerance."""
        gradient, variables = point.gradient, problem.variables
        scale = problem.scale if variables.separable else like(variables.scale, point.x)
        step = variables.project(point.x - scale**2 * gradient) - point.x
        return -_floats(weighted_sum(gradient, step))[0] <= self.tolerance * abs(value)


@dataclass(frozen=True, eq=False)
class _Step:
    """A point found on a line, with the cost, the slope and t there."""

    point: Point
    value: float
    slope: float
    t: float
    gained_slope: float = 0.0

    def remembered_by(self, memory: Memory, before: Point) -> Memory:
        """Return the memory with this step, left as it was where the curvature along it is not positive."""
        step, change = self.point.x - before.x, self.point.gradient - before.gradient
        # Why: the slope on the line is not enough; at a kink, and after projection, the gradients may be the same.
        product, size = _floats(weighted_sum(step, change), weighted_sum(change, change))
        if not (self.gained_slope > 0.0 and product > 0.0 and size > 0.0):
            return memory
        return memory.with_pair(step, change, product)


def _search_line(line: Line, first: _Step, value: float, slope: float, limit: float, ratio: float) -> _Step | None:
    """Return the point on the line where the slope has come down to `ratio` of the first one, or the best seen.

    Parameters
    ----------
    line : Line
        Where to search, from t = 0 to `limit`.
    first : _Step
        The trial at t = 1.
    value, slope : float
        Cost and slope at t = 0.
    limit : float
        Largest t within the bounds.
    ratio : float
        When to stop.
    """
    low, low_slope, high, high_slope = 0.0, slope, math.inf, math.nan
    best: _Step | None = None
    trial = first
    for _ in range(_TRIALS):
        is_lower = trial.value <= value + 1e-4 * trial.t * slope + _NOISE * abs(value)
        if is_lower and (best is None or trial.value <= best.value):
            best = trial
        if is_lower and (abs(trial.slope) <= -ratio * slope or (trial.slope < 0.0 and trial.t >= limit)):
            return trial
        if is_lower and trial.slope < 0.0:
            low, low_slope = trial.t, trial.slope
        else:
            high, high_slope = trial.t, trial.slope
        if high - low <= 1e-8 * high:
            break
        t = _next_trial(low, low_slope, high, high_slope, limit)
        point = line.at(t)
        now, now_slope = _floats(point.value, line.slope(point))
        trial = _Step(point, now, now_slope, t)
    return best


def _next_trial(low: float, low_slope: float, high: float, high_slope: float, limit: float) -> float:
    """Return where the secant of the slopes crosses zero, kept well inside the bracket or a few steps ahead."""
    if math.isinf(high):
        return min(4.0 * low, limit)
    t = 0.5 * (low + high)
    if high_slope > low_slope and math.isfinite(high_slope):
        t = low - low_slope * (high - low) / (high_slope - low_slope)
    margin = 0.05 * (high - low)
    return min(max(t, low + margin), high - margin)


def _check_gradient(problem: CostFunction, point: Point) -> None:
    """Raise `CalculationError` when the gradient is NaN or infinite, though the cost is not."""
    if not all_finite(point.gradient):
        raise CalculationError(
            f"the gradient of the cost is NaN or infinite where the cost is {_floats(point.value)[0]:g}: does the "
            "derivative of every quantity and objective agree with its values?"
        )


def _check_line(problem: CostFunction, line: Line) -> None:
    """Raise `CalculationError` when the cost is NaN or infinite however near the start of a line."""
    point = line.at(1e-8)
    checked_value(problem, point, _floats(point.value)[0])


def _floats(*values: Array) -> list[float]:
    """Return several arrays of shape () as floats, with one synchronisation."""
    xp = namespace(*values)
    return [float(entry) for entry in to_numpy(xp.stack([xp.astype(value, values[0].dtype) for value in values]))]

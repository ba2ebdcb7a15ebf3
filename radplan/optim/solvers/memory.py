"""The curvature that a limited-memory quasi-Newton method remembers, and the bounded step it proposes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from radplan.arrays import Array, device_of, like, namespace, native_device, scatter
from radplan.influence import Variables
from radplan.operators import BlockDiagonal

_TRUST = 10.0
"""Typical sizes by which a step may move a variable where no line is searched."""
_PAIRS_IN_METRIC = 6
"""Largest number of pairs beside a metric of blocks."""
_HOLDS = 4
"""Times that variables are held and the model of blocks is minimised over the others."""
_FAR = 0.3
"""A step pushes a variable far beyond its bound when the way to the bound is less than this share of it."""
_SHARES = (1.0, 0.5, 0.25, 0.1, 0.03)
"""Shares of a step that are tried until its projection descends."""


@dataclass(frozen=True, eq=False)
class Box:
    """Bounds of the variables on the device, ``(variables,)`` each; infinite where there is none."""

    lower: Array
    upper: Array

    @classmethod
    def of(cls, variables: Variables, x: Array) -> Box:
        """Return the bounds beside `x`."""
        zero = namespace(x).zeros_like(x)
        return cls(zero + like(variables.lower, x), zero + like(variables.upper, x))

    def holds(self, x: Array, direction: Array) -> Array:
        """Say for each variable whether it is at a bound that `direction` points out of."""
        return ((x <= self.lower) & (direction < 0.0)) | ((x >= self.upper) & (direction > 0.0))

    def longest(self, x: Array, direction: Array) -> Array:
        """Return the largest t at which ``x + t direction`` is within the bounds, shape ()."""
        xp = namespace(x)
        still = direction == 0.0
        moving = xp.where(still, xp.ones_like(direction), direction)
        reach = xp.where(direction < 0.0, self.lower - x, self.upper - x) / moving
        return xp.min(xp.where(still, xp.full_like(reach, xp.inf), reach))


@dataclass(frozen=True, eq=False)
class Memory:
    """The last pairs of steps and gradient changes, in scaled variables ``x / scale``, and their scalar products.

    Each pair is divided by ``sqrt(s'y)``, which leaves the BFGS matrix as it is. Scalar products are kept from one
    iteration to the next: a new pair costs one product with each array. The matrix starts from a multiple of a first
    metric M: the unit matrix, or blocks.

    Parameters
    ----------
    size : int
        Largest number of pairs.
    scale : array of shape (variables,)
        Diagonal scaling.
    metric : BlockDiagonal, optional
        M; the unit matrix when left out.
    steps, changes, measured : array of shape (pairs, variables), or None
        The pairs s and y, oldest first, and M s.
    step_products, cross_products : array of shape (pairs, pairs), or None
        Scalar products of all steps with all ``M s``, and of all steps with all changes.
    curvature : array of shape ()
        Size of the second derivative along the newest step in the metric, ``y' M^-1 y``.
    """

    size: int
    scale: Array
    metric: BlockDiagonal | None = None
    steps: Array | None = None
    changes: Array | None = None
    measured: Array | None = None
    step_products: Any = None
    cross_products: Any = None
    curvature: Any = None

    @property
    def count(self) -> int:
        """Number of pairs held."""
        return 0 if self.steps is None else int(self.steps.shape[0])

    def with_metric(self, metric: BlockDiagonal | None) -> Memory:
        """Return a memory without pairs that starts from a metric in unscaled variables, or from the unit matrix."""
        scaled = None if metric is None else metric.scaled(self.scale)
        return Memory(self.size, self.scale, scaled)

    @property
    def most(self) -> int:
        """Largest number of pairs: few where a metric holds most of what they would say, and each costs a solve."""
        return self.size if self.metric is None else min(self.size, _PAIRS_IN_METRIC)

    def with_pair(self, step: Array, change: Array, product: float) -> Memory:
        """Return the memory with the newest pair, where ``step' change`` is `product` > 0, in place of the oldest."""
        xp = namespace(step)
        length = product**0.5
        newest = xp.reshape(step / (self.scale * length), (1, -1))
        other = xp.reshape(change * self.scale / length, (1, -1))
        metric = self.metric
        weighed = newest if metric is None else metric.times(newest)
        everything = xp.ones_like(other[0, :], dtype=xp.bool)
        inverse = other if metric is None else metric.solve(other, everything)
        theta = xp.sum(other * inverse)
        if self.steps is None:
            squares, crosses = _products(newest, weighed), _products(newest, other)
            return Memory(self.size, self.scale, metric, newest, other, weighed, squares, crosses, theta)
        spare = max(self.count + 1 - self.most, 0)
        steps = xp.concat([self.steps[spare:, :], newest], axis=0)
        changes = xp.concat([self.changes[spare:, :], other], axis=0)  # type: ignore[index]
        measured = steps if metric is None else xp.concat([self.measured[spare:, :], weighed], axis=0)  # type: ignore[index]
        column = _products(steps, weighed)
        squares = _bordered(self.step_products, spare, column[:-1, :], xp.matrix_transpose(column))
        right, below = _products(steps[:-1, :], other), xp.matrix_transpose(_products(changes, newest))
        crosses = _bordered(self.cross_products, spare, right, below)
        return Memory(self.size, self.scale, metric, steps, changes, measured, squares, crosses, theta)

    def solve(self, gradient: Array, free: Array) -> Array:
        r"""Return the step to the minimum of the quasi-Newton model over the free variables, bounds left aside.

        Parameters
        ----------
        gradient : array of shape (variables,)
            By the unscaled variables.
        free : array of shape (variables,)
            Whether a variable may move.

        Source: Byrd, Lu, Nocedal and Zhu, SIAM J. Sci. Comput. 16 (1995) 1190, section 5 (direct primal method).
        """
        scaled = gradient * self.scale
        if self.metric is not None:
            return -self.scale * self._solve_in_metric(self.metric, scaled, free)
        choice = Choice.of(free)
        return choice.spread(-choice.cut(self.scale) * self._solve_on(choice, choice.cut(scaled)))

    def _solve_on(self, choice: Choice, scaled: Array) -> Array:
        """Return what the model's second derivative among the chosen variables maps to their scaled gradient."""
        xp = namespace(scaled)
        if self.steps is None or self.changes is None:
            return scaled
        theta = self.curvature
        basis = xp.concat([choice.cut(self.changes), theta * choice.cut(self.steps)], axis=0)
        middle = self._middle() - xp.matmul(basis, xp.matrix_transpose(basis)) / theta
        reduced = xp.linalg.solve(middle, xp.reshape(xp.matmul(basis, scaled), (-1, 1)))
        correction = xp.reshape(xp.matmul(xp.matrix_transpose(basis), reduced), (-1,))
        return (scaled + correction / theta) / theta

    def _solve_in_metric(self, metric: BlockDiagonal, scaled: Array, free: Array) -> Array:
        """As `_solve_on`, for a metric of blocks and the free of all variables."""
        xp = namespace(scaled)
        row = xp.reshape(scaled, (1, -1))
        if self.steps is None:
            return metric.solve(row, free)[0, :]
        theta = self.curvature
        basis = xp.concat([self.changes, theta * self.measured], axis=0)
        solved = metric.solve(xp.concat([basis, row], axis=0), free) / theta
        middle = self._middle() - xp.matmul(basis, xp.matrix_transpose(solved[:-1, :]))
        reduced = xp.linalg.solve(middle, xp.reshape(xp.matmul(basis, solved[-1, :]), (-1, 1)))
        return solved[-1, :] + xp.reshape(xp.matmul(xp.matrix_transpose(solved[:-1, :]), reduced), (-1,))

    def _middle(self) -> Array:
        """Return the small matrix ``[[-D, L'], [L, theta S' M S]]`` of the compact form."""
        xp = namespace(self.cross_products)
        lower = xp.tril(self.cross_products, k=-1)
        diagonal = xp.eye(self.count, dtype=lower.dtype, device=native_device(lower))
        above = xp.concat([-self.cross_products * diagonal, xp.matrix_transpose(lower)], axis=1)
        return xp.concat([above, xp.concat([lower, self.curvature * self.step_products], axis=1)], axis=0)


@dataclass(frozen=True, eq=False)
class Choice:
    """Some of the variables: cut out by number on NumPy, set to zero elsewhere, where counting them would wait."""

    free: Array
    index: Array | None

    @classmethod
    def of(cls, free: Array) -> Choice:
        """Return the choice of variables ``(variables,)`` that are true."""
        on_host = device_of(free).backend == "numpy"
        return cls(free, namespace(free).nonzero(free)[0] if on_host else None)

    def cut(self, values: Array) -> Array:
        """Return the chosen of values ``(..., variables)``."""
        xp = namespace(values)
        if self.index is None:
            return values * xp.astype(self.free, values.dtype)
        return xp.take(values, self.index, axis=-1)

    def spread(self, values: Array) -> Array:
        """Return values of the chosen variables among zeros for the others, ``(variables,)``."""
        return values if self.index is None else scatter(self.free.shape[0], self.index, values)


def _products(rows: Array, others: Array) -> Array:
    """Return scalar products ``(n, m)`` of rows ``(n, variables)`` with others ``(m, variables)``."""
    xp = namespace(rows)
    return xp.matmul(rows, xp.matrix_transpose(others))


def _bordered(square: Array, spare: int, right: Array, below: Array) -> Array:
    """Return a matrix without its first rows and columns, with a new last column and row."""
    xp = namespace(right)
    return xp.concat([xp.concat([square[spare:, spare:], right], axis=1), below], axis=0)


def newton_step(memory: Memory, x: Array, gradient: Array, box: Box, variables: Variables) -> Array:
    """Return a feasible step ``(variables,)``: the minimum of the model over the free variables, projected.

    Variables at a bound that the negative gradient points out of are held, then also those that the step would push
    out of the bound they are at.
    """
    held = box.holds(x, -gradient)
    for _ in range(2 if memory.count else 1):
        step = memory.solve(gradient, ~held)
        held = held | box.holds(x, step)
    return variables.project(x + step) - x


def bent_step(memory: Memory, x: Array, gradient: Array, box: Box, variables: Variables) -> Array | None:
    """Return a feasible step that descends, for a metric that is not diagonal; None where none is found.

    Cutting a step at the bounds may then point uphill. Variables that the step would push far beyond their bound go to
    that bound and are held, and the model is minimised over the others again; what is left is shortened and projected
    until it descends.
    """
    xp = namespace(x)
    held = box.holds(x, -gradient)
    to_bounds = xp.zeros_like(x)
    for _ in range(_HOLDS):
        step = memory.solve(gradient, ~held)
        to_bound = xp.where(step < 0.0, box.lower - x, box.upper - x)
        pushed = (xp.abs(to_bound) < _FAR * xp.abs(step)) & ~held
        if not bool(xp.any(pushed)):
            break
        held = held | pushed
        # Why: towards the bound the step pushes to; the gradient may point to the other.
        to_bounds = xp.where(pushed, to_bound, to_bounds)
    step = xp.where(held, to_bounds, step)
    promised = xp.abs(xp.sum(gradient * step))
    for t in _SHARES:
        direction = variables.project(x + t * step) - x
        if bool(xp.sum(gradient * direction) < -1e-3 * t * promised):
            return direction
    return None


def coupled_step(memory: Memory, x: Array, gradient: Array, variables: Variables) -> Array:
    """Return a step ``(variables,)`` that a projection follows downhill where more than bounds may hold the variables.

    What a small step downhill cannot move as it likes is taken out of the quasi-Newton model and goes downhill in
    typical sizes, which variables that hold each other share, so that the projection finds what is left to it: two
    leaves that touch move on together. No variable moves by more than its typical size without a memory, and by a
    few of them with one, as far as a quasi-Newton model may be trusted.
    """
    xp = namespace(x)
    typical = like(variables.scale, x)
    downhill = -(typical**2) * gradient
    bent = held = _is_bent(downhill, typical, x, variables)
    stiffness = (typical / memory.scale) ** 2
    shared = xp.sum(xp.where(bent, stiffness, xp.zeros_like(stiffness)))
    together = downhill * xp.sum(xp.astype(bent, x.dtype)) / xp.where(shared > 0.0, shared, xp.ones_like(shared))
    if not memory.count:
        return _shortened(xp.where(bent, together, downhill / stiffness), typical, 1.0)
    for _ in range(2):
        step = memory.solve(gradient, ~held)
        held = held | _is_bent(step, typical, x, variables)
    return _shortened(xp.where(bent, together / memory.curvature, step), typical, _TRUST)


def _shortened(step: Array, typical: Array, most: float) -> Array:
    """Return a step shortened so that no variable moves by more than `most` of its typical sizes."""
    size = _largest(step, typical) / most
    return step / namespace(step).maximum(size, namespace(step).ones_like(size))


def _largest(step: Array, scale: Array) -> Array:
    """Return the largest move in typical sizes, shape (); 1 where there is none."""
    xp = namespace(step)
    largest = xp.max(xp.abs(step) / scale)
    return xp.where(largest > 0.0, largest, xp.ones_like(largest))


def _is_bent(direction: Array, scale: Array, x: Array, variables: Variables) -> Array:
    """Say for each variable whether the projection changes a small step by more than a tenth."""
    xp = namespace(x)
    small = direction * (xp.finfo(x.dtype).eps ** 0.5 / _largest(direction, scale))
    return xp.abs(variables.project(x + small) - (x + small)) > 0.1 * xp.abs(small)

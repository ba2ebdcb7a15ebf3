"""The curvature that a limited-memory quasi-Newton method remembers, and the bounded step it proposes."""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array, device_of, like, namespace, native_device, scatter
from radplan.influence import Variables

_TRUST = 10.0
"""Typical sizes by which a step may move a variable where no line is searched."""


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
    iteration to the next: a new pair costs one product with each array.

    Parameters
    ----------
    size : int
        Largest number of pairs.
    scale : array of shape (variables,)
        Diagonal scaling.
    steps, changes : array of shape (pairs, variables), or None
        The pairs, oldest first.
    step_products, cross_products : array of shape (pairs, pairs), or None
        Scalar products of all steps with each other, and with all changes.
    """

    size: int
    scale: Array
    steps: Array | None = None
    changes: Array | None = None
    step_products: Array | None = None
    cross_products: Array | None = None

    @property
    def count(self) -> int:
        """Number of pairs held."""
        return 0 if self.steps is None else int(self.steps.shape[0])

    @property
    def curvature(self) -> Array:
        """Size of the scaled second derivative along the newest step, shape ()."""
        newest = self.changes[-1, :]  # type: ignore[index]
        return namespace(newest).sum(newest * newest)

    def with_pair(self, step: Array, change: Array, product: float) -> Memory:
        """Return the memory with the newest pair, where ``step' change`` is `product` > 0, in place of the oldest."""
        xp = namespace(step)
        length = product**0.5
        steps = newest = xp.reshape(step / (self.scale * length), (1, -1))
        changes = other = xp.reshape(change * self.scale / length, (1, -1))
        if self.steps is None or self.changes is None:
            return Memory(self.size, self.scale, steps, changes, _products(steps, newest), _products(steps, other))
        spare = max(self.count + 1 - self.size, 0)
        steps = xp.concat([self.steps[spare:, :], newest], axis=0)
        changes = xp.concat([self.changes[spare:, :], other], axis=0)
        with_newest = _products(steps, newest)
        squares = _bordered(self.step_products, spare, with_newest[:-1, :], xp.matrix_transpose(with_newest))
        crosses = _bordered(
            self.cross_products, spare, _products(steps[:-1, :], other), xp.matrix_transpose(_products(changes, newest))
        )
        return Memory(self.size, self.scale, steps, changes, squares, crosses)

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
        xp = namespace(gradient)
        choice = Choice.of(free)
        scaled, scale = choice.cut(gradient * self.scale), choice.cut(self.scale)
        if self.steps is None or self.changes is None or self.cross_products is None:
            return choice.spread(-scale * scaled)
        theta = self.curvature
        lower = xp.tril(self.cross_products, k=-1)
        diagonal = xp.eye(self.count, dtype=lower.dtype, device=native_device(lower))
        middle = xp.concat(
            [
                xp.concat([-self.cross_products * diagonal, xp.matrix_transpose(lower)], axis=1),
                xp.concat([lower, theta * self.step_products], axis=1),
            ],
            axis=0,
        )
        basis = xp.concat([choice.cut(self.changes), theta * choice.cut(self.steps)], axis=0)
        middle = middle - xp.matmul(basis, xp.matrix_transpose(basis)) / theta
        reduced = xp.linalg.solve(middle, xp.reshape(xp.matmul(basis, scaled), (-1, 1)))
        correction = xp.reshape(xp.matmul(xp.matrix_transpose(basis), reduced), (-1,))
        return choice.spread(-scale * (scaled + correction / theta) / theta)


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

"""The curvature that a limited-memory quasi-Newton method remembers, and the bounded step it proposes."""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array, like, namespace, native_device
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
    """The last pairs of steps and gradient changes, in scaled variables ``x / scale``.

    Each pair is divided by ``sqrt(s'y)``, which leaves the BFGS matrix as it is.

    Parameters
    ----------
    size : int
        Largest number of pairs.
    scale : array of shape (variables,)
        Diagonal scaling.
    steps, changes : array of shape (pairs, variables), or None
        The pairs, oldest first.
    """

    size: int
    scale: Array
    steps: Array | None = None
    changes: Array | None = None

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
        steps = xp.reshape(step / (self.scale * length), (1, -1))
        changes = xp.reshape(change * self.scale / length, (1, -1))
        if self.steps is not None and self.changes is not None:
            spare = max(self.count + 1 - self.size, 0)
            steps = xp.concat([self.steps[spare:, :], steps], axis=0)
            changes = xp.concat([self.changes[spare:, :], changes], axis=0)
        return Memory(self.size, self.scale, steps, changes)

    def solve(self, gradient: Array, free: Array) -> Array:
        r"""Return the step to the minimum of the quasi-Newton model over the free variables, bounds left aside.

        Parameters
        ----------
        gradient : array of shape (variables,)
            By the unscaled variables.
        free : array of shape (variables,)
            1.0 where a variable may move, else 0.0.

        Source: Byrd, Lu, Nocedal and Zhu, SIAM J. Sci. Comput. 16 (1995) 1190, section 5 (direct primal method).
        """
        xp = namespace(gradient)
        scaled = gradient * self.scale * free
        if self.steps is None or self.changes is None:
            return -self.scale * scaled
        theta = self.curvature
        inner = xp.matmul(self.steps, xp.matrix_transpose(self.changes))
        lower = xp.tril(inner, k=-1)
        diagonal = xp.eye(self.count, dtype=inner.dtype, device=native_device(inner))
        square = theta * xp.matmul(self.steps, xp.matrix_transpose(self.steps))
        middle = xp.concat(
            [
                xp.concat([-inner * diagonal, xp.matrix_transpose(lower)], axis=1),
                xp.concat([lower, square], axis=1),
            ],
            axis=0,
        )
        basis = xp.concat([self.changes, theta * self.steps], axis=0) * xp.reshape(free, (1, -1))
        middle = middle - xp.matmul(basis, xp.matrix_transpose(basis)) / theta
        reduced = xp.linalg.solve(middle, xp.reshape(xp.matmul(basis, scaled), (-1, 1)))
        correction = xp.reshape(xp.matmul(xp.matrix_transpose(basis), reduced), (-1,))
        return -self.scale * (scaled + correction / theta) / theta


def newton_step(memory: Memory, x: Array, gradient: Array, box: Box, variables: Variables) -> Array:
    """Return a feasible step ``(variables,)``: the minimum of the model over the free variables, projected.

    Variables at a bound that the negative gradient points out of are held, then also those that the step would push
    out of the bound they are at.
    """
    xp = namespace(x)
    held = box.holds(x, -gradient)
    for _ in range(2 if memory.count else 1):
        step = memory.solve(gradient, xp.astype(~held, gradient.dtype))
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
        step = memory.solve(gradient, xp.astype(~held, gradient.dtype))
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

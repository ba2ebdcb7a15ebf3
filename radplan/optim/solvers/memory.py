"""The curvature that a limited-memory quasi-Newton method remembers, and the bounded step it proposes."""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array, device_of, like, namespace
from radplan.influence import Variables


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
        newest = self.changes[-1, :]
        theta = xp.sum(newest * newest)
        inner = xp.matmul(self.steps, xp.matrix_transpose(self.changes))
        lower = xp.tril(inner, k=-1)
        diagonal = xp.eye(self.count, dtype=inner.dtype, device=device_of(inner))
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

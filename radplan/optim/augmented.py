"""The augmented Lagrangian: a problem whose cost leans on its constraints instead of having them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from radplan.arrays import Array, like, namespace, scalar, weighted_sum
from radplan.influence import ForwardModel, Variables
from radplan.operators import BlockDiagonal
from radplan.optim.curvature import gauss_newton_blocks
from radplan.optim.points import CostFunction, Point
from radplan.optim.problem import Problem
from radplan.optim.terms import Term


@dataclass(frozen=True, eq=False)
class Hold:
    r"""What holds one constraint: :math:`\sum_i w_i \tfrac{\rho}{2} (s_i - \mathrm{clip}(s_i, l_i, u_i))^2`.

    With :math:`s = v + \lambda/\rho`. Either v is the value of the constraint, or v are the values of its voxels, each
    with bounds and a multiplier of its own, where those imply the constraint (`Objective.voxel_bounds`).

    Parameters
    ----------
    lower, upper : array of shape () or (m,)
        Bounds; infinite where there is none.
    multipliers : array of shape () or (m,)
        :math:`\lambda`.
    penalty : float
        :math:`\rho` >= 0; with 0 the constraint is left out.
    by_voxel : bool
        Whether v are the values of the voxels.
    """

    lower: Array
    upper: Array
    multipliers: Array
    penalty: float = 0.0
    by_voxel: bool = False

    @classmethod
    def of(cls, term: Term, bounds: tuple[float, float], values: Array, margin: float) -> Hold:
        """Return the hold of a constraint without multipliers, its voxels chosen where the quantity has `values`."""
        seen = term.seen(values)
        by_voxel = None if term.is_robust else term.objective.voxel_bounds(seen, term.weights, *bounds, margin)
        if by_voxel is not None:
            return cls(*by_voxel, namespace(seen).zeros_like(seen), by_voxel=True)
        lower, upper = (like(bound, seen) for bound in bounds)
        return cls(lower, upper, namespace(seen).zeros_like(lower))

    def beyond(self, value: Array) -> Array:
        """Return how far a value, shifted by its multiplier, lies outside its bounds; signed."""
        xp = namespace(value)
        shifted = value + self.multipliers / self.penalty if self.penalty > 0.0 else value
        return shifted - xp.minimum(xp.maximum(shifted, self.lower), self.upper)

    def held(self, term: Term, values: Array) -> tuple[Array, Array]:
        """Return v of a constraint, shape () or ``(m,)``, and the weights of its parts."""
        seen = term.seen(values)
        if self.by_voxel:
            return seen, term.weights
        value = namespace(seen).astype(term.cost(values)[0], seen.dtype)
        return value, namespace(seen).ones_like(value)

    def cost(self, term: Term, values: Array) -> tuple[Array, Array]:
        """Return the cost of leaning, shape (), and its gradient by course values, as `Term.cost` does."""
        seen = term.seen(values)
        xp = namespace(seen)
        if self.by_voxel:
            beyond = self.beyond(seen)
            weighted = self.penalty * term.weights * beyond
            return 0.5 * weighted_sum(beyond, weighted), xp.reshape(weighted, (1, -1))
        value, gradient = term.cost(values)
        beyond = self.beyond(xp.astype(value, seen.dtype))
        return 0.5 * self.penalty * beyond**2, self.penalty * beyond * gradient

    def curvature(self, term: Term, values: Array) -> Array | None:
        """Return the second derivative of the cost of leaning by each value ``(scenarios, voxels)`` per fraction.

        None where the value is held as a whole: that is one direction, and no part of a voxel's.
        """
        if not self.by_voxel or self.penalty == 0.0:
            return None
        beyond = self.beyond(term.seen(values))
        leaning = self.penalty * term.weights * namespace(values).astype(beyond != 0.0, term.weights.dtype)
        return term.spread_in_scenario(leaning, values, term.multiplier)

    def violation(self, term: Term, values: Array) -> float:
        """Return the root mean square of how far v lies outside its bounds [unit of v]."""
        value, weights = self.held(term, values)
        beyond = replace(self, penalty=0.0).beyond(value)
        return math.sqrt(scalar(namespace(beyond).sum(weights * beyond**2)))

    def updated(self, term: Term, values: Array, bounds: tuple[float, float], margin: float) -> Hold:
        """Return the hold whose multipliers take over what the penalty held, its voxels chosen anew."""
        value, _ = self.held(term, values)
        fresh = Hold.of(term, bounds, values, margin)
        return replace(fresh, multipliers=self.penalty * self.beyond(value), penalty=self.penalty)


@dataclass(frozen=True, eq=False)
class AugmentedProblem(CostFunction):
    r"""The cost of a problem and of leaning on its constraints; it has no constraints itself.

    Parameters
    ----------
    problem : Problem
        The problem with constraints.
    holds : tuple of Hold
        One for each constraint.

    Source: Rockafellar, SIAM J. Control 12 (1974) 268.
    """

    problem: Problem
    holds: tuple[Hold, ...]

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

    def from_images(self, x: Array, images: Mapping[str, Array]) -> Point:
        evaluation = self.problem.evaluation(images)
        value, cotangents = self.problem.cost(evaluation)
        for term, hold in zip(self.problem.constraint_terms, self.holds, strict=True):
            if hold.penalty == 0.0:
                continue
            values = evaluation[term.quantity]
            leaning, gradient = hold.cost(term, values)
            value = value + namespace(value).astype(leaning, value.dtype)
            term.add_cotangent(cotangents, gradient, values, 1.0)
        return Point(self, x, images, value, evaluation, cotangents)

    def curvature(self, point: Point) -> BlockDiagonal | None:
        total = self.problem.voxel_curvatures(point.evaluation)
        for term, hold in zip(self.problem.constraint_terms, self.holds, strict=True):
            part = hold.curvature(term, point.evaluation[term.quantity])
            if part is not None:
                total[term.quantity] = total[term.quantity] + part if term.quantity in total else part
        return gauss_newton_blocks(self.model, total, point.evaluation)

    def check_finite(self, x: Array | Point) -> None:
        self.problem.check_finite(x)

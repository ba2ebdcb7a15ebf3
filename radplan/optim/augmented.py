"""The augmented Lagrangian: a problem whose cost leans on its constraints instead of having them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from radplan.arrays import Array, namespace
from radplan.influence import ForwardModel, Variables
from radplan.optim.points import CostFunction, Point
from radplan.optim.problem import Problem


@dataclass(frozen=True, eq=False)
class AugmentedProblem(CostFunction):
    r"""The cost of a problem and :math:`\sum_i \tfrac12 \rho_i (s_i - \mathrm{clip}(s_i, l_i, u_i))^2`.

    With :math:`s = c(x) + \lambda/\rho`, c the values of the constraints between l and u. It has no constraints itself.

    Parameters
    ----------
    problem : Problem
        The problem with constraints.
    multipliers, penalties : array of shape (m,)
        :math:`\lambda`, and :math:`\rho` >= 0; a constraint with penalty 0 is left out.

    Source: Rockafellar, SIAM J. Control 12 (1974) 268.
    """

    problem: Problem
    multipliers: Array
    penalties: Array

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
        problem = self.problem
        xp = namespace(problem.start)
        evaluation = problem.evaluation(images)
        value, cotangents = problem.cost(evaluation)
        lower, upper = problem.constraint_lower, problem.constraint_upper
        total = 0.0 * self.penalties[0]
        for row, term in enumerate(problem.constraint_terms):
            values = evaluation[term.quantity]
            reached, gradient = term.cost(values, (1.0,))
            penalty = self.penalties[row]
            shift = self.multipliers[row] / xp.where(penalty > 0.0, penalty, xp.ones_like(penalty))
            moved = xp.astype(reached, problem.start.dtype) + shift
            beyond = moved - xp.minimum(xp.maximum(moved, lower[row]), upper[row])
            total = total + 0.5 * penalty * beyond**2
            term.add_cotangent(cotangents, gradient * xp.astype(penalty * beyond, gradient.dtype), values, 1.0)
        return Point(self, x, images, value + xp.astype(total, value.dtype), evaluation, cotangents)

    def check_finite(self, x: Array | Point) -> None:
        self.problem.check_finite(x)

"""The problem: goals on quantities on a forward model, as value, gradient and line, for any solver."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np

from radplan.arrays import Array, accumulator, all_finite, dtype_name, like, namespace, quantile, scalar, to_numpy
from radplan.errors import CalculationError, InputError
from radplan.influence import Dij, ForwardModel
from radplan.optim.constraints import Constraint
from radplan.optim.goals import Goal
from radplan.optim.points import ImageSpace, Line, Point
from radplan.optim.starting import start_scale
from radplan.optim.terms import Members, Term, bind, structure_members
from radplan.patient import Patient
from radplan.quantities.base import Quantity
from radplan.quantities.resolver import Evaluation, QuantityResolver

_PROBES = 4
"""Random cotangents from which the scaling of a model is estimated that is no matrix."""
_LEAST_MOVE = 1e-3
"""Least effect of a variable that such a scaling reckons with, over the largest one."""


class Problem:
    r"""Minimise :math:`\sum_g w_g f_g(q_g(x))` over the variables of a model, within bounds and constraints.

    One evaluation costs one forward and one adjoint of each image that is needed, whatever the number of goals. The
    model is restricted to the voxels of the goals, whose indices and weights go to its device once. Everything on the
    way is per fraction; here, and only here, additive quantities are multiplied by `fractions`, and their cotangents
    once.

    Parameters
    ----------
    model : ForwardModel
        What gives the images, such as a `Dij`.
    goals : sequence of Goal
        At least one with a weight > 0.
    patient : Patient, optional
        Whose structures the goals name, seen after overlap by priority among the structures of all goals.
    fractions : int
        Number of fractions, >= 1.
    constraints : sequence of Constraint
        What must hold; only some solvers take them.
    robust : "composite", optional
        Minimise the sum of all goals in the scenario where it is largest.
    weights : mapping of str to (voxels, weights), optional
        Structures by flat grid voxels ``(m,)`` and shares ``(m,)`` (None: equal), taken as they are, in place of or
        beside those of a patient: any imported matrix can be optimised.
    background : array of shape (nz, ny, nx), optional
        Dose that is there already, as of an earlier plan: a course total on the dose grid, >= 0 [Gy]. Goals and
        constraints see it added to ``physical_dose``, which all of them must then look at.

    Raises
    ------
    InputError
        When there is nothing to optimise, a structure is empty or outside the dose grid, or NaN comes out of the model.
    UnknownNameError
        When a structure or a quantity is not known.

    >>> import numpy as np
    >>> from radplan.geometry.grid import Grid
    >>> from radplan.optim.objectives import SquaredDeviation
    >>> dij = Dij.from_matrices({"physical_dose": np.asarray([[1.0, 1.0]])}, Grid((1, 1, 1), (1, 1, 1), (0, 0, 0)))
    >>> problem = Problem(dij, [Goal("spot", SquaredDeviation(60.0))], fractions=30, weights={"spot": ([0], None)})
    >>> float(problem.value_and_gradient(np.asarray([0.5, 0.5]))[0])  # (30 x 1 Gy - 60 Gy)^2
    900.0
    """

    def __init__(
        self,
        model: ForwardModel,
        goals: Sequence[Goal],
        patient: Patient | None = None,
        fractions: int = 1,
        constraints: Sequence[Constraint] = (),
        *,
        robust: str | None = None,
        weights: Mapping[str, Members] | None = None,
        background: Array | None = None,
    ) -> None:
        self.goals, self.constraints = _checked_terms(goals, constraints, robust)
        self.fractions = _checked_fractions(fractions)
        self.robust = robust
        self._leaning: tuple[Array, Array, Array, Array] | None = None
        stated: tuple[Goal | Constraint, ...] = (*self.goals, *self.constraints)
        if background is not None:
            _check_background(background, stated)
        members = structure_members(list(dict.fromkeys(term.structure for term in stated)), model, patient, weights)
        voxels = np.unique(np.concatenate([entry[0] for entry in members.values()]))
        self.model = model.restrict(voxels)
        self.variables = model.variables
        self.linear: bool = model.linear
        self._resolver = QuantityResolver(ImageSpace(self.model))
        bound = {term.quantity: self._resolver.get(term.quantity) for term in stated}
        self._images = tuple(dict.fromkeys(name for quantity in bound.values() for name in quantity.images))
        self._goal_keys = tuple(dict.fromkeys(goal.quantity for goal in self.goals))
        self._keys: tuple[str | Quantity, ...] = tuple(bound)
        additive = {key: quantity.additive for key, quantity in bound.items()}
        unit = self._unit_images()
        dtype = dtype_name(next(iter(unit.values())))
        self.terms = bind(self.goals, members, self.model, self.fractions, dtype, additive, background)
        self.constraint_terms = bind(self.constraints, members, self.model, self.fractions, dtype, additive, background)
        targets = () if patient is None else patient.target_names
        self.start: Array = self._start(unit, additive, targets)

    def value_and_gradient(self, x: Array) -> tuple[Array, Array]:
        """Return the cost, shape (), and its gradient ``(variables,)`` at `x`: one forward and one adjoint.

        Parameters
        ----------
        x : array of shape (variables,)
            Variables on the device of the model, float64 where it has that.
        """
        point = self.at(x)
        return point.value, point.gradient

    def at(self, x: Array) -> Point:
        """Return the problem evaluated at `x`: one forward."""
        return self.from_images(x, self.model.forward(x, self._images))

    def from_images(self, x: Array, images: Mapping[str, Array]) -> Point:
        """Return the problem evaluated at `x` where the images are known already: no forward."""
        evaluation = self._resolver.evaluate(images, self._keys)
        values = {key: evaluation[key] for key in self._goal_keys}
        cost = self._composite if self.robust == "composite" else self._sum_of_goals
        value, cotangents = cost(values)
        if self._leaning is not None:
            value = value + namespace(value).astype(self._lean(evaluation, self._leaning, cotangents), value.dtype)
        return Point(self, x, images, value, evaluation, cotangents)

    def augmented(self, multipliers: Array, penalties: Array) -> Problem:
        r"""Return the problem whose cost leans on the constraints instead of having them: the augmented Lagrangian.

        Added is :math:`\sum_i \tfrac12 \rho_i (s_i - \mathrm{clip}(s_i, l_i, u_i))^2` with
        :math:`s = c(x) + \lambda/\rho`, c the values of the constraints between l and u.

        Parameters
        ----------
        multipliers, penalties : array of shape (m,)
            :math:`\lambda`, and :math:`\rho` >= 0; a constraint with penalty 0 is left out.
        """
        other = copy(self)
        other._leaning = (self.constraint_lower, self.constraint_upper, multipliers, penalties)
        other.constraints = ()
        return other

    def along(self, x: Array | Point, direction: Array) -> Line:
        """Return the problem on the line ``x + t direction``.

        Parameters
        ----------
        x : Point or array of shape (variables,)
            Where the line starts; a `Point` saves the forward there, so that the line costs one forward in all when the
            model is linear.
        direction : array of shape (variables,)
            Where it goes.
        """
        start = x if isinstance(x, Point) else self.at(x)
        return Line(start, direction, self.model.forward(direction, self._images) if self.linear else None)

    def goal_values(self, x: Array | Point) -> tuple[float, ...]:
        """Return the value of each goal's objective, unweighted, in the order of the goals."""
        point = x if isinstance(x, Point) else self.at(x)
        chances = self.model.scenarios.probabilities
        return tuple(scalar(term.cost(point.values_of(term.quantity), chances)[0]) for term in self.terms)

    def check_finite(self, x: Array | Point) -> None:
        """Raise `CalculationError` naming the goals whose value at `x` is NaN or infinite."""
        values = self.goal_values(x)
        bad = [term.label for term, value in zip(self.terms, values, strict=True) if not math.isfinite(value)]
        if bad:
            raise CalculationError(f"NaN or infinite value in {len(bad)} goals: {'; '.join(bad)}")

    @cached_property
    def scale(self) -> Array:
        r"""Typical size of each variable ``(variables,)``: :math:`1/\sqrt{\mathrm{diag}(D^T C D)}` of the linear part.

        C holds the weight that the goals give to each voxel. No size is above ten times the median, so that variables
        that barely reach a goal do not run off. For a model that is no `Dij` the diagonal at the start is estimated
        from pullbacks of random signs, which cost one adjoint each; of moves by the typical size, `Variables.scale`,
        none counts for less than a thousandth of the one that matters most, because a leaf that stands outside the
        target now may matter later.
        Source of the estimate: Bekas, Kokiopoulou and Saad, Appl. Numer. Math. 57 (2007) 1214.
        """
        x = self.start
        xp = namespace(x)
        if not isinstance(self.model, Dij):
            typical = x * 0.0 + like(self.variables.scale, x)
            moves = self._estimated_diagonal() * typical**2
            most = xp.max(moves)
            most = xp.where(most > 0.0, most, xp.ones_like(most))
            return typical / xp.sqrt(xp.maximum(moves, _LEAST_MOVE * most))
        norms = like(self.model.operators[self._images[0]][0].column_norms(self._voxel_importance()), x)
        even = xp.full_like(norms, 1.0 / norms.shape[0])
        middle = quantile(norms, even, 0.5)
        floor = xp.where(middle > 0.0, 0.1 * middle, xp.max(norms))
        return 1.0 / xp.maximum(norms, xp.where(floor > 0.0, floor, xp.ones_like(floor)))

    @property
    def constraint_lower(self) -> Array:
        """Lower bounds of the constraints, ``(m,)``."""
        return like([constraint.bounds[0] for constraint in self.constraints], self.start)

    @property
    def constraint_upper(self) -> Array:
        """Upper bounds of the constraints, ``(m,)``."""
        return like([constraint.bounds[1] for constraint in self.constraints], self.start)

    def constraint_values(self, x: Array | Point) -> Array:
        """Return the values of the constraints in the nominal scenario, ``(m,)``."""
        point = x if isinstance(x, Point) else self.at(x)
        xp = namespace(self.start)
        if not self.constraint_terms:
            return self.start[:0]
        values = [term.cost(point.values_of(term.quantity), (1.0,))[0] for term in self.constraint_terms]
        return xp.stack([xp.astype(value, self.start.dtype) for value in values])

    def constraint_pullback(self, x: Array | Point, multipliers: Array) -> Array:
        """Return the gradient ``(variables,)`` of the constraints summed with multipliers ``(m,)``: one adjoint."""
        point = x if isinstance(x, Point) else self.at(x)
        cotangents: dict[Any, Array] = {}
        for row, term in enumerate(self.constraint_terms):
            values = point.values_of(term.quantity)
            gradient = term.cost(values, (1.0,))[1]
            factor = namespace(gradient).astype(multipliers[row], gradient.dtype)
            self._add(cotangents, term, gradient * factor, values, 1.0)
        if not cotangents:
            return point.x * 0.0
        evaluation = self._resolver.evaluate(point.images, self._keys)
        return self.model.pullback(point.x, evaluation.pullback(cotangents))

    def constraint_jacobian(self, x: Array | Point) -> Array:
        """Return the gradients of all constraints, ``(m, variables)``: one adjoint each."""
        point = x if isinstance(x, Point) else self.at(x)
        count = len(self.constraint_terms)
        xp = namespace(self.start)
        unit = xp.eye(count, dtype=self.start.dtype, device=self.model.device.native)
        rows = [self.constraint_pullback(point, unit[row, :]) for row in range(count)]
        return xp.stack(rows) if rows else xp.reshape(self.start[:0], (0, self.variables.count))

    def _sum_of_goals(self, values: Mapping[Any, Array]) -> tuple[Array, dict[Any, Array]]:
        total: Any = None
        cotangents: dict[Any, Array] = {}
        chances = self.model.scenarios.probabilities
        for term in self.terms:
            if term.weight == 0.0:
                continue
            value, gradient = term.cost(values[term.quantity], chances)
            weighted = term.weight * value
            total = weighted if total is None else total + weighted
            self._add(cotangents, term, gradient, values[term.quantity], term.weight)
        return total, cotangents

    def _composite(self, values: Mapping[Any, Array]) -> tuple[Array, dict[Any, Array]]:
        pairs = [(term, *term.costs(values[term.quantity])) for term in self.terms if term.weight != 0.0]
        total = pairs[0][0].weight * pairs[0][1]
        for term, costs, _ in pairs[1:]:
            total = total + term.weight * costs
        xp = namespace(total)
        worst = xp.arange(total.shape[0], device=self.model.device.native) == xp.argmax(total)
        cotangents: dict[Any, Array] = {}
        for term, _, gradients in pairs:
            masked = xp.reshape(xp.astype(worst, gradients.dtype), (-1, 1)) * gradients
            self._add(cotangents, term, masked, values[term.quantity], term.weight)
        return xp.max(total), cotangents

    def _lean(
        self, evaluation: Evaluation, leaning: tuple[Array, Array, Array, Array], cotangents: dict[Any, Array]
    ) -> Array:
        """Return the cost of leaning on the constraints, shape (), and add its cotangents."""
        xp = namespace(self.start)
        lower, upper, multipliers, penalties = leaning
        total = 0.0 * penalties[0]
        for row, term in enumerate(self.constraint_terms):
            values = evaluation[term.quantity]
            found, gradient = term.cost(values, (1.0,))
            penalty = penalties[row]
            shift = multipliers[row] / xp.where(penalty > 0.0, penalty, xp.ones_like(penalty))
            moved = xp.astype(found, self.start.dtype) + shift
            beyond = moved - xp.minimum(xp.maximum(moved, lower[row]), upper[row])
            total = total + 0.5 * penalty * beyond**2
            self._add(cotangents, term, gradient * xp.astype(penalty * beyond, gradient.dtype), values, 1.0)
        return total

    def _add(self, cotangents: dict[Any, Array], term: Term, gradient: Array, values: Array, factor: float) -> None:
        """Add the cotangent of one term to that of its quantity, filling in scenarios it does not look at."""
        part = term.spread(gradient, values.shape[1], factor)
        missing = values.shape[0] - part.shape[0]
        if missing:
            part = namespace(part).concat([part, values[:missing, :] * 0.0], axis=0)
        key = term.quantity
        cotangents[key] = cotangents[key] + part if key in cotangents else part

    def _unit_images(self) -> dict[str, Array]:
        """Return the images at the model's own start, checked: what every goal looks at must be finite and reached."""
        place = self.model.device
        beside = place.asarray(np.zeros(1), "float32")
        wide = accumulator(beside)
        zeros = place.xp.zeros(self.variables.count, dtype=wide, device=place.native)
        self._unit_start = self.variables.project(zeros + like(self.variables.start, beside, wide))
        images = self.model.forward(self._unit_start, self._images)
        for name, values in images.items():
            if not all_finite(values):
                raise InputError(f"the model gives NaN or infinite values of {name!r} in voxels of the goals")
        if self.linear and scalar(place.xp.max(place.xp.abs(images[self._images[0]]))) == 0.0:
            raise InputError(
                f"no variable of the model gives any {self._images[0]} in the structures of the goals: "
                "check the beams' aim and the structure names"
            )
        return images

    def _start(self, unit: Mapping[str, Array], additive: Mapping[Any, bool], targets: Sequence[str]) -> Array:
        """Return the uniform start scaled to the prescription, without the variables that reach no goal."""
        x = self._unit_start
        if not self.linear:
            return x
        scaled = self.variables.project(x * start_scale(self.terms, unit, self._resolver, additive, targets))
        if not isinstance(self.model, Dij):
            return scaled
        reached = like(self.model.operators[self._images[0]][0].column_norms(), x) > 0.0
        return self.variables.project(namespace(x).where(reached, scaled, namespace(x).zeros_like(scaled)))

    def _estimated_diagonal(self) -> Array:
        """Return ``diag(J' C J)`` of the first image at the start, ``(variables,)``: a mean over random signs."""
        x = self.start
        root = self._voxel_importance() ** 0.5
        cases = len(self.model.scenarios)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (_PROBES, 1, root.shape[0]))
        signs = np.concatenate([signs, np.zeros((_PROBES, cases - 1, root.shape[0]))], axis=1)
        total = x * 0.0
        for probe in range(_PROBES):
            row = self.model.pullback(x, {self._images[0]: like(signs[probe], root) * root})
            total = total + row**2 / _PROBES
        return total

    def _voxel_importance(self) -> Array:
        """Return what second derivative the goals put on each voxel, were all of them squared, ``(voxels,)``."""
        total: Any = None
        for term in self.terms:
            part = term.spread(2.0 * term.multiplier * term.weights, len(self.model.voxels), term.weight)
            total = part if total is None else total + part
        return total


def _checked_terms(
    goals: Sequence[Goal], constraints: Sequence[Constraint], robust: str | None
) -> tuple[tuple[Goal, ...], tuple[Constraint, ...]]:
    goals, constraints = tuple(goals), tuple(constraints)
    for entry, kind in (*((g, Goal) for g in goals), *((c, Constraint) for c in constraints)):
        if not isinstance(entry, kind):
            raise InputError(f"expected a {kind.__name__}, got {entry!r}")
    if not goals:
        raise InputError("there is nothing to optimise: give at least one goal")
    if all(goal.weight == 0 for goal in goals):
        raise InputError("there is nothing to optimise: every goal has weight 0")
    if robust not in (None, "composite"):
        raise InputError(f"robust of a problem must be None or 'composite', got {robust!r}; the rest belongs to Goal")
    if robust == "composite" and any(goal.robust != "nominal" for goal in goals):
        raise InputError("robust='composite' takes goals that are not robust themselves: drop one of the two")
    return goals, constraints


def _check_background(background: Array, stated: Sequence[Goal | Constraint]) -> None:
    for term in stated:
        name = term.quantity if isinstance(term.quantity, str) else term.quantity.name
        if name != "physical_dose":
            raise InputError(
                f"a background is physical dose, but {term.structure!r} has a goal on {name!r}, in which doses of "
                "different courses do not add up: state the goals in physical_dose"
            )
    if not all_finite(background) or float(to_numpy(background).min()) < 0.0:
        raise InputError("the background dose must be finite and >= 0 Gy in every voxel")


def _checked_fractions(fractions: int) -> int:
    if isinstance(fractions, bool) or fractions != int(fractions) or fractions < 1:
        raise InputError(f"fractions must be a whole number >= 1, got {fractions!r}")
    return int(fractions)

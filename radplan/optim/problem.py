"""The problem: goals on quantities on a forward model, as value, gradient and line, for any solver."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from radplan.arrays import Array, accumulator, all_finite, dtype_name, like, namespace, scalar, to_numpy
from radplan.errors import CalculationError, InputError
from radplan.influence import Dij, ForwardModel, Variables
from radplan.operators import BlockDiagonal
from radplan.optim.constraints import Constraint, Kept, refuse_contradictions, worst_kept
from radplan.optim.curvature import gauss_newton_blocks, voxel_curvatures
from radplan.optim.goals import Goal, is_number
from radplan.optim.points import CostFunction, Point
from radplan.optim.robust import smooth_maximum
from radplan.optim.scaling import typical_sizes
from radplan.optim.settling import dose_volume_points
from radplan.optim.starting import start_scale
from radplan.optim.terms import Members, bind, in_scenarios, member_key, structure_members
from radplan.patient import Patient
from radplan.quantities.base import Quantity
from radplan.quantities.resolver import Evaluation, QuantityResolver


class Problem(CostFunction):
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
        Minimise the sum of all goals in the scenario where it is largest: `radplan.optim.robust.smooth_maximum`.
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
        self.goals, self._constraints = checked_terms(goals, constraints, robust)
        self.fractions = checked_fractions(fractions)
        self.robust = robust
        stated: tuple[Goal | Constraint, ...] = (*self.goals, *self.constraints)
        if background is not None:
            _check_background(background, stated)
        members = structure_members(list(dict.fromkeys(member_key(term) for term in stated)), model, patient, weights)
        voxels = np.unique(np.concatenate([entry[0] for entry in members.values()]))
        self._model = model.restrict(voxels)
        self._variables = model.variables
        self._resolver = QuantityResolver(self._model)
        bound = {term.quantity: self._resolver.get(term.quantity) for term in stated}
        self._images = tuple(dict.fromkeys(name for quantity in bound.values() for name in quantity.images))
        self._goal_keys = tuple(dict.fromkeys(goal.quantity for goal in self.goals))
        self._keys: tuple[str | Quantity, ...] = tuple(bound)
        additive = {key: quantity.additive for key, quantity in bound.items()}
        unit = self._unit_images()
        dtype = dtype_name(next(iter(unit.values())))
        seen = (members, self.model, self.fractions, dtype, additive, background, patient)
        self.terms = bind(self.goals, *seen)
        self.constraint_terms = in_scenarios(bind(self.constraints, *seen), self.constraints)
        targets = () if patient is None else patient.target_names
        self._start = self._first_variables(unit, additive, targets)

    @property
    def model(self) -> ForwardModel:
        return self._model

    @property
    def variables(self) -> Variables:
        return self._variables

    @property
    def images(self) -> tuple[str, ...]:
        return self._images

    @property
    def start(self) -> Array:
        return self._start

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        return self._constraints

    def from_images(self, x: Array, images: Mapping[str, Array]) -> Point:
        evaluation = self.evaluation(images)
        value, cotangents = self.cost(evaluation)
        return Point(self, x, images, value, evaluation, cotangents)

    def evaluation(self, images: Mapping[str, Array]) -> Evaluation:
        """Return the quantities of all goals and constraints for images ``(scenarios, voxels)`` per fraction."""
        return self._resolver.evaluate_images(images, self._keys)

    def cost(self, evaluation: Evaluation) -> tuple[Array, dict[Any, Array]]:
        """Return the cost of evaluated quantities, shape (), and its derivative by each ``(scenarios, voxels)``."""
        values = {key: evaluation[key] for key in self._goal_keys}
        return self._composite(values) if self.robust == "composite" else self._sum_of_goals(values)

    def curvature(self, point: Point) -> BlockDiagonal | None:
        return gauss_newton_blocks(self.model, self.voxel_curvatures(point.evaluation), point.evaluation)

    def voxel_curvatures(self, evaluation: Evaluation) -> dict[Any, Array]:
        """Return the second derivative of the goals by each quantity ``(scenarios, voxels)`` per fraction."""
        return voxel_curvatures(self.terms, evaluation)

    def dose_volume_points(self, point: Point) -> Array:
        return dose_volume_points(self.terms, point.evaluation)

    def bounded(self, lower: Array, upper: Array) -> Problem:
        """Return the same problem with other bounds ``(variables,)`` of its variables."""
        other = copy(self)
        other._variables = replace(self._variables, lower=lower, upper=upper)
        return other

    def bounded_by(self, constraints: Sequence[Constraint]) -> Problem:
        """Return the same problem with other bounds of the same constraints.

        Raises
        ------
        InputError
            When they bound something else than before.
        """
        stated = [(entry.structure, entry.objective, entry.quantity) for entry in self.constraints]
        if stated != [(entry.structure, entry.objective, entry.quantity) for entry in constraints]:
            raise InputError("bounded_by takes the problem's own constraints with other bounds, in their order")
        other = copy(self)
        other._constraints = tuple(constraints)
        return other

    def weighted(self, factors: Sequence[float]) -> Problem:
        """Return the same problem with the weight of each goal multiplied by a factor >= 0.

        Raises
        ------
        InputError
            When there is not one finite factor >= 0 for each goal, or all are 0.
        """
        if (
            len(factors) != len(self.goals)
            or not all(0.0 <= factor < math.inf for factor in factors)
            or not any(factors)
        ):
            raise InputError(f"expected a factor >= 0 for each of {len(self.goals)} goals, not all 0; got {factors}")
        other = copy(self)
        pairs = list(zip(self.goals, self.terms, factors, strict=True))
        other.goals = tuple(replace(goal, weight=goal.weight * float(factor)) for goal, _, factor in pairs)
        other.terms = tuple(replace(term, weight=term.weight * float(factor)) for _, term, factor in pairs)
        return other

    def goal_gradients(self, point: Point) -> Array:
        """Return the gradient of each goal's objective, unweighted, ``(goals, variables)``: one adjoint each.

        On NumPy each adjoint reads only the voxels that its goal acts on, so that all together cost about one.
        """
        rows = []
        for term in self.terms:
            values = point.values_of(term.quantity)
            cotangents: dict[Any, Array] = {}
            term.add_cotangent(cotangents, term.cost(values)[1], values, 1.0)
            rows.append(self.model.pullback(point.x, point.evaluation.image_cotangents(cotangents)))
        return namespace(rows[0]).stack(rows)

    def goal_values(self, x: Array | Point) -> tuple[float, ...]:
        """Return the value of each goal's objective, unweighted, in the order of the goals."""
        point = x if isinstance(x, Point) else self.at(x)
        return tuple(scalar(term.cost(point.values_of(term.quantity))[0]) for term in self.terms)

    def check_finite(self, x: Array | Point) -> None:
        values = self.goal_values(x)
        bad = [term.label for term, value in zip(self.terms, values, strict=True) if not math.isfinite(value)]
        if bad:
            raise CalculationError(f"NaN or infinite value in {len(bad)} goals: {'; '.join(bad)}")

    @cached_property
    def scale(self) -> Array:
        """Typical size of each variable ``(variables,)``: see `radplan.optim.scaling.typical_sizes`."""
        return typical_sizes(self.model, self.images[0], self.terms, self.start)

    @property
    def term_constraints(self) -> tuple[Constraint, ...]:
        """The constraint that each of `constraint_terms` holds: one that is robust in every scenario repeats."""
        return tuple(self.constraints[term.number] for term in self.constraint_terms)

    @property
    def constraint_lower(self) -> Array:
        """Lower bounds of the constraints, ``(m,)``."""
        return like([constraint.bounds[0] for constraint in self.term_constraints], self.start)

    @property
    def constraint_upper(self) -> Array:
        """Upper bounds of the constraints, ``(m,)``."""
        return like([constraint.bounds[1] for constraint in self.term_constraints], self.start)

    def constraint_values(self, x: Array | Point) -> Array:
        """Return the values of the constraints, ``(m,)``, one for each of `constraint_terms`."""
        point = x if isinstance(x, Point) else self.at(x)
        xp = namespace(self.start)
        if not self.constraint_terms:
            return self.start[:0]
        values = [term.cost(point.values_of(term.quantity))[0] for term in self.constraint_terms]
        return xp.stack([xp.astype(value, self.start.dtype) for value in values])

    def judged(self, x: Array | Point) -> tuple[Kept, ...]:
        """Return what each bounded metric is at `x`, unsmoothed: of one held in every scenario the worst."""
        if not self.constraint_terms:
            return ()
        point = x if isinstance(x, Point) else self.at(x)
        values = [scalar(term.measured(point.values_of(term.quantity))) for term in self.constraint_terms]
        read = [Kept(*pair) for pair in zip(self.term_constraints, values, strict=True)]
        return tuple(
            worst_kept(
                [entry for entry, term in zip(read, self.constraint_terms, strict=True) if term.number == number]
            )
            for number in range(len(self.constraints))
        )

    def constraint_pullback(self, x: Array | Point, multipliers: Array) -> Array:
        """Return the gradient ``(variables,)`` of the constraints summed with multipliers ``(m,)``: one adjoint."""
        point = x if isinstance(x, Point) else self.at(x)
        cotangents: dict[Any, Array] = {}
        for row, term in enumerate(self.constraint_terms):
            values = point.values_of(term.quantity)
            gradient = term.cost(values)[1]
            factor = namespace(gradient).astype(multipliers[row], gradient.dtype)
            term.add_cotangent(cotangents, gradient * factor, values, 1.0)
        if not cotangents:
            return point.x * 0.0
        evaluation = self.evaluation(point.images)
        return self.model.pullback(point.x, evaluation.image_cotangents(cotangents))

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
        for term in self.terms:
            if term.weight == 0.0:
                continue
            value, gradient = term.cost(values[term.quantity])
            weighted = term.weight * value
            total = weighted if total is None else total + weighted
            term.add_cotangent(cotangents, gradient, values[term.quantity], term.weight)
        return total, cotangents

    def _composite(self, values: Mapping[Any, Array]) -> tuple[Array, dict[Any, Array]]:
        pairs = [(term, *term.costs(values[term.quantity])) for term in self.terms if term.weight != 0.0]
        total = pairs[0][0].weight * pairs[0][1]
        for term, costs, _ in pairs[1:]:
            total = total + term.weight * costs
        xp = namespace(total)
        value, shares = smooth_maximum(total)
        cotangents: dict[Any, Array] = {}
        for term, _, gradients in pairs:
            shared = xp.reshape(xp.astype(shares, gradients.dtype), (-1, 1)) * gradients
            term.add_cotangent(cotangents, shared, values[term.quantity], term.weight)
        return value, cotangents

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

    def _first_variables(
        self, unit: Mapping[str, Array], additive: Mapping[Any, bool], targets: Sequence[str]
    ) -> Array:
        """Return the uniform start scaled to the prescription, without the variables that reach no goal."""
        x = self._unit_start
        if not self.linear:
            return x
        scaled = self.variables.project(x * start_scale(self.terms, unit, self._resolver, additive, targets))
        if not isinstance(self.model, Dij):
            return scaled
        reached = like(self.model.operators[self._images[0]][0].column_norms(), x) > 0.0
        return self.variables.project(namespace(x).where(reached, scaled, namespace(x).zeros_like(scaled)))


def checked_terms(
    goals: Sequence[Goal], constraints: Sequence[Constraint], robust: str | None
) -> tuple[tuple[Goal, ...], tuple[Constraint, ...]]:
    """Return goals and constraints as tuples, or raise `InputError` where they are no lists of these or contradict."""
    for given, word in ((goals, "goals"), (constraints, "constraints")):
        if isinstance(given, Goal | Constraint | str | Mapping) or not isinstance(given, Iterable):
            raise InputError(f"expected a list of {word}, got {given!r}: write [...] around it")
    goals, constraints = tuple(goals), tuple(constraints)
    for entry, kind in (*((g, Goal) for g in goals), *((c, Constraint) for c in constraints)):
        if not isinstance(entry, kind):
            raise InputError(f"expected a {kind.__name__}, got {entry!r}")
    refuse_contradictions(constraints)
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


def checked_fractions(fractions: int) -> int:
    """Return a number of fractions as an int, or raise `InputError` where it is no whole number >= 1."""
    if not is_number(fractions) or not float(fractions).is_integer() or fractions < 1:
        raise InputError(f"fractions must be a whole number >= 1, got {fractions!r}")
    return int(fractions)

"""Goals and constraints bound to the voxels of one model: indices and weights on the device, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from radplan.arrays import Array, Device, namespace, scatter, to_numpy
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.influence import ForwardModel
from radplan.operators import SparseOperator
from radplan.optim.constraints import Constraint
from radplan.optim.goals import Goal
from radplan.optim.objectives import Objective
from radplan.optim.robust import REDUCTIONS, each_scenario
from radplan.patient import Patient
from radplan.patient.sampling import sampling_matrix, structure_points
from radplan.quantities.base import Quantity

Members = tuple[Any, ...]
"""Sorted flat grid voxels of a structure and weights ``(m,)``, which sum to 1, on the host: one for each voxel, or for
each point that a third entry, a sparse matrix ``(m, voxels)``, reads from the voxels.
"""

MemberKey = tuple[str, bool]
"""Name of a structure, and whether it is seen whole and not after overlap."""


@dataclass(frozen=True, eq=False)
class Term:
    """One objective on one quantity, ready to be evaluated on a model's values ``(scenarios, voxels)``.

    Parameters
    ----------
    label : str
        What messages call it.
    structure : str
        The structure.
    objective : Objective
        Cut to the voxels of the structure.
    quantity : str or Quantity
        What it looks at.
    index : array of shape (m,), optional
        Its voxels among those of the model; None for all.
    weights : array of shape (m,)
        Their shares, sum 1.
    weight : float
        Importance of the goal.
    multiplier : float
        Fractions where the quantity is additive, else 1.
    reading : SparseOperator, optional
        Takes its voxels to the points where a whole structure is judged: weights and values are of those.
    robust : str
        Name of the reduction over scenarios.
    tail : float
        Of the CVaR.
    background : array of shape (m,), optional
        Course total that is there already in these voxels, added to the values.
    probabilities : tuple of float
        Of the scenarios.
    scenario : int
        The one that is looked at without a reduction over all.
    number : int
        Of the goal or constraint in its list.
    """

    label: str
    structure: str
    objective: Objective
    quantity: str | Quantity
    index: Array | None
    weights: Array
    weight: float
    multiplier: float
    reading: SparseOperator | None = None
    robust: str = "nominal"
    tail: float = 0.1
    background: Array | None = None
    probabilities: tuple[float, ...] = (1.0,)
    scenario: int = 0
    number: int = 0

    @property
    def is_robust(self) -> bool:
        """Whether all scenarios are reduced to one number."""
        return REDUCTIONS[self.robust] is not None

    def seen(self, values: Array) -> Array:
        """Return the course values ``(m,)`` in the scenario that is looked at, of ``values (scenarios, voxels)``."""
        return self.course_values(values[self.scenario, :])

    def course_values(self, values: Array) -> Array:
        """Return what the objective sees of per-fraction ``values (..., voxels)``: its voxels, as course totals."""
        cut = values if self.index is None else namespace(values).take(values, self.index, axis=-1)
        if self.reading is not None:
            cut = self.reading.apply(cut)
        total = cut * self.multiplier if self.multiplier != 1.0 else cut
        return total if self.background is None else total + self.background

    def spread(self, gradient: Array, count: int, factor: float) -> Array:
        """Return the cotangent ``(..., count)`` per fraction of a gradient by course values, times `factor`."""
        scale = factor * self.multiplier
        scaled = gradient * scale if scale != 1.0 else gradient
        if self.reading is not None:
            xp = namespace(scaled)
            scaled = xp.reshape(self.reading.adjoint(xp.reshape(scaled, (-1,))), (1, -1))
        return scaled if self.index is None else scatter(count, self.index, scaled)

    def add_cotangent(self, cotangents: dict[Any, Array], gradient: Array, values: Array, factor: float) -> None:
        """Add a gradient by course values, times `factor`, to the cotangent of this term's quantity.

        Parameters
        ----------
        cotangents : dict of quantity to array of shape (scenarios, voxels)
            Per fraction; the one of this term's quantity is replaced, or joins.
        gradient : array of shape (1, m) or (scenarios, m)
            As `cost` and `costs` return it; scenarios that it does not look at get zero.
        values : array of shape (scenarios, voxels)
            What the quantity is there.
        factor : float
            What it counts.
        """
        in_all = gradient.shape[0] == values.shape[0]
        part = (
            self.spread(gradient, values.shape[1], factor)
            if in_all
            else self.spread_in_scenario(gradient, values, factor)
        )
        key = self.quantity
        cotangents[key] = cotangents[key] + part if key in cotangents else part

    def cost(self, values: Array) -> tuple[Array, Array]:
        """Return the objective, unweighted, and its gradient by the course values.

        The gradient is ``(1, m)`` for one scenario alone, ``(scenarios, m)`` for a reduction over all.
        """
        reduction = REDUCTIONS[self.robust]
        if reduction is not None:
            return reduction(self.objective, self.course_values(values), self.weights, self.probabilities, self.tail)
        value, gradient = self.objective.value_and_gradient(self.seen(values), self.weights)
        return value, namespace(gradient).reshape(gradient, (1, -1))

    def measured(self, values: Array) -> Array:
        """Return the objective as a metric reads it, unsmoothed, shape (); of several scenarios the expected one."""
        if not self.is_robust:
            return self.objective.measured(self.seen(values), self.weights)
        rows = [self.objective.measured(row, self.weights) for row in self._each(values)]
        return sum(chance * row for chance, row in zip(self.probabilities, rows, strict=True))

    def curvature(self, values: Array) -> Array | None:
        """Return the second derivative of the weighted objective by each value ``(scenarios, voxels)`` per fraction.

        A goal that is robust counts in every scenario by its probability. None where the objective does not state it.
        """
        factor = self.weight * self.multiplier
        if not self.is_robust:
            found = self.objective.curvature(self.seen(values), self.weights)
            return None if found is None else self.spread_in_scenario(found, values, factor)
        parts = []
        for row, chance in zip(self._each(values), self.probabilities, strict=True):
            found = self.objective.curvature(row, self.weights)
            if found is None:
                return None
            parts.append(self.spread(found, values.shape[1], factor * chance))
        return namespace(values).stack(parts)

    def costs(self, values: Array) -> tuple[Array, Array]:
        """Return the objective in each scenario ``(scenarios,)`` and its gradient ``(scenarios, m)``."""
        return each_scenario(self.objective, self.course_values(values), self.weights)

    def _each(self, values: Array) -> list[Array]:
        """Return the course values ``(m,)`` in every scenario."""
        return [self.course_values(values[row, :]) for row in range(values.shape[0])]

    def spread_in_scenario(self, gradient: Array, values: Array, factor: float) -> Array:
        """Return `spread` of what belongs to the scenario that is looked at, zero in the others.

        Parameters
        ----------
        gradient : array of shape (m,) or (1, m)
            By course values.
        values : array of shape (scenarios, voxels)
            What the quantity is.
        factor : float
            What it counts.
        """
        xp = namespace(values)
        part = xp.reshape(self.spread(xp.reshape(gradient, (1, -1)), values.shape[1], factor), (1, -1))
        before, after = values[: self.scenario, :], values[self.scenario + 1 :, :]
        return part if values.shape[0] == 1 else xp.concat([before * 0.0, part, after * 0.0], axis=0)


def member_key(term: Goal | Constraint) -> MemberKey:
    """Return which voxels a goal or constraint looks at: those of its structure, whole where a metric is bounded."""
    return term.structure, isinstance(term, Constraint) and term.metric is not None


def structure_members(
    keys: Sequence[MemberKey], model: ForwardModel, patient: Patient | None, given: Mapping[str, Members] | None
) -> dict[MemberKey, Members]:
    """Return voxels and weights of each structure in goals: those given, else the patient's.

    Parameters
    ----------
    keys : sequence of (structure, whole)
        Structures that have goals or constraints, without repeats; those that are not whole are seen after overlap
        among themselves.
    model : ForwardModel
        Whose grid and voxels are looked at.
    patient : Patient, optional
        Gives structures, after overlap by priority among `keys`.
    given : mapping of str to (voxels, weights), optional
        Flat grid voxels and their shares, taken as they are; weights None means equal shares.

    Raises
    ------
    InputError
        When a structure is empty or lies outside the voxels of the model, or there is no source for it.
    UnknownNameError
        When no structure has that name.
    """
    if given is None and patient is None:
        raise InputError("a problem needs a patient, or weights={structure: (voxels, weights)}, to know its structures")
    members: dict[MemberKey, Members] = {}
    contending = [name for name, whole in keys if not whole]
    for name, whole in keys:
        if given is not None and name in given:
            members[name, whole] = _checked(name, given[name], model)
        elif patient is None:
            raise UnknownNameError("structure in weights", name, given or ())
        else:
            host = np.asarray(model.voxels)
            fine = whole and patient.membership == "volume" and name != patient.external.name
            overlap = None if whole else contending
            members[name, whole] = (
                _judged_points(patient, name, model.grid, host)
                if fine
                else patient.structure_weights(name, model.grid, voxels=host, overlap_with=overlap)
            )
            if members[name, whole][0].size == 0:
                raise InputError(f"structure {name!r} of a goal has no voxel where the model calculates")
    return members


def _judged_points(patient: Patient, name: str, grid: Grid, voxels: Any) -> Members:
    """Return the voxels that a whole structure is read from, and the weights and matrix of its points."""
    index, weights = structure_points(patient.structures[name], grid)
    matrix = sampling_matrix(index, grid, voxels)
    used = np.flatnonzero(np.asarray(abs(matrix).sum(axis=0)).reshape(-1) > 0.0)
    return voxels[used], weights / weights.sum(), matrix[:, used]


def bind(
    goals: Sequence[Goal | Constraint],
    members: Mapping[MemberKey, Members],
    model: ForwardModel,
    fractions: int,
    dtype: str,
    additive: Mapping[str | Quantity, bool],
    background: Array | None = None,
    patient: Patient | None = None,
) -> tuple[Term, ...]:
    """Return the terms of goals or constraints on a model restricted to their voxels."""
    place, held = model.device, np.asarray(model.voxels)
    arrays: dict[MemberKey, tuple[Array | None, Array, SparseOperator | None]] = {}
    terms = []
    for number, goal in enumerate(goals):
        key = member_key(goal)
        voxels, shares, *matrix = members[key]
        if key not in arrays:
            whole = voxels.size == held.size
            index = None if whole else place.asarray(np.searchsorted(held, voxels), "int64")
            reading = SparseOperator.from_scipy(matrix[0], place, dtype) if matrix else None
            arrays[key] = index, place.asarray(shares, dtype), reading
        index, weights, reading = arrays[key]
        cut = _Cut(goal.label, model.grid, voxels, place, dtype)
        weight, robust, tail = 1.0, "nominal", 1.0
        if isinstance(goal, Goal):
            objective = goal.objective
            weight, robust, tail = goal.weight, goal.robust, goal.tail
        else:
            objective = goal.function(_volume_of(goal.structure, voxels, model, patient))
            robust = "expected" if goal.robust == "expected" else "nominal"
        terms.append(
            Term(
                label=goal.label,
                structure=goal.structure,
                objective=objective.on_voxels(cut),
                quantity=goal.quantity,
                index=index,
                weights=weights,
                weight=float(weight),
                multiplier=float(fractions) if additive[goal.quantity] else 1.0,
                reading=reading,
                robust=robust,
                tail=tail,
                background=None if background is None else _read_at(reading, cut(background)),
                probabilities=tuple(model.scenarios.probabilities),
                number=number,
            )
        )
    return tuple(terms)


def in_scenarios(terms: Sequence[Term], constraints: Sequence[Constraint]) -> tuple[Term, ...]:
    """Return the terms of constraints, those that must hold in every scenario once for each."""
    return tuple(
        replace(term, scenario=row)
        for term, own in zip(terms, constraints, strict=True)
        for row in range(len(term.probabilities) if own.robust == "worst" else 1)
    )


def _read_at(reading: SparseOperator | None, values: Array) -> Array:
    return values if reading is None else reading.apply(values)


def _volume_of(name: str, voxels: Any, model: ForwardModel, patient: Patient | None) -> float:
    """Return the volume of a structure [cm3]: that of its voxels where the patient has none of that name."""
    if patient is not None and name in patient.structures:
        return float(patient.structures[name].volume) / 1000.0
    return float(voxels.size * model.grid.voxel_volume) / 1000.0


@dataclass(frozen=True, eq=False)
class _Cut:
    """Cuts an array on the dose grid to the voxels of a structure and puts it beside the values."""

    label: str
    grid: Grid
    voxels: Any
    place: Device
    dtype: str

    def __call__(self, volume: Array) -> Array:
        host = to_numpy(volume)
        if host.shape not in (tuple(self.grid.shape), (self.grid.size,)):
            raise InputError(
                f"{self.label}: the array has shape {host.shape}, expected the dose grid {tuple(self.grid.shape)} "
                f"or ({self.grid.size},)"
            )
        cut = host.reshape(-1)[self.voxels]
        if not np.all(np.isfinite(cut)):
            raise InputError(f"{self.label}: the array is NaN or infinite in {np.sum(~np.isfinite(cut))} of its voxels")
        return self.place.asarray(cut, self.dtype)


def _checked(name: str, given: Members, model: ForwardModel) -> Members:
    voxels = np.asarray(to_numpy(given[0]))
    if voxels.ndim != 1 or voxels.size == 0 or voxels.dtype.kind not in "iu":
        raise InputError(f"structure {name!r} needs a non-empty list of flat grid voxels, got shape {voxels.shape}")
    voxels = voxels.astype(np.int64)
    weights = np.ones(voxels.size) if given[1] is None else np.asarray(to_numpy(given[1]), dtype=np.float64)
    if weights.shape != voxels.shape or not np.all(np.isfinite(weights)) or weights.min() < 0 or weights.sum() <= 0:
        raise InputError(f"weights of structure {name!r} must be {voxels.size} finite numbers >= 0, not all 0")
    order = np.argsort(voxels, kind="stable")
    voxels, weights = voxels[order], weights[order]
    held = np.asarray(model.voxels)
    outside = held[np.minimum(np.searchsorted(held, voxels), held.size - 1)] != voxels
    if np.any(np.diff(voxels) == 0):
        raise InputError(f"structure {name!r} names a voxel twice")
    if outside.any():
        raise InputError(
            f"{outside.sum()} of {voxels.size} voxels of structure {name!r} lie outside the {held.size} voxels of the "
            "model: calculate dose there, or leave them out of the structure"
        )
    return voxels, weights / weights.sum()

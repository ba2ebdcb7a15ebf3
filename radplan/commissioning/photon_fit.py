"""Fits a photon linac to a water tank: least squares through the aperture engine, with what is usual as a prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from radplan.commissioning.agreement import CurveFit, FactorFit, curve_fits, factor_fits, outside, relative
from radplan.commissioning.photon_parameters import (
    FittedParameter,
    Parameter,
    model_of,
    node_radii,
    parameters_of,
    start_model,
)
from radplan.commissioning.photon_provenance import provenance_of
from radplan.commissioning.tank import Floats, TankData, TankScan
from radplan.commissioning.tank_dose import Predicted, predicted
from radplan.errors import InputError
from radplan.machines import PhotonMachine
from radplan.machines.generate.photon import PhotonModel, make
from radplan.progress import each

_DOSE = 0.003
"""Standard deviation of a point of a curve, over its normalisation [1]."""

_OUTSIDE_DOSE = 0.01
"""The same outside the field, where the kernel's tail and leakage are less sure than inside [1]."""

_DISTANCE = 0.2
"""Standard deviation of where a point of a curve lies [mm]; from the surface to `_SHALLOW` more than 1 mm."""

_SHALLOW, _SHALLOW_DISTANCE = 3.0, 1.0

_FACTOR = 0.002
"""Standard deviation of an output factor [1]."""

_COUNTED = 15.0
"""How many points of a curve count as independent."""

_BEND = 0.006
"""Standard deviation of how the off-axis fluence bends from node to node [1]."""

_STEP = 0.05
"""Difference of a parameter from which a slope is calculated, in what is usual of its spread."""


@dataclass(frozen=True, eq=False)
class Commissioning:
    """A linac fitted to a water tank.

    Parameters
    ----------
    machine : PhotonMachine
        The linac, with provenance.
    model : PhotonModel
        The numbers it is made from.
    parameters : tuple of FittedParameter
        What was fitted.
    curves : tuple of CurveFit
        Every scan beside what the machine gives.
    factors : tuple of FactorFit
        Every output factor beside what the machine gives.
    undetermined : tuple of str
        What the measurements do not tell, in sentences.
    data : TankData
        What was measured.
    evaluations : int
        How often all curves were calculated.
    """

    machine: PhotonMachine
    model: PhotonModel
    parameters: tuple[FittedParameter, ...]
    curves: tuple[CurveFit, ...]
    factors: tuple[FactorFit, ...]
    undetermined: tuple[str, ...]
    data: TankData
    evaluations: int

    def __getitem__(self, name: str) -> FittedParameter:
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise InputError(f"no parameter {name!r}; fitted were {', '.join(p.name for p in self.parameters)}")


def fit_photons(
    data: TankData, name: str = "commissioned", start: str | None = None, incomplete: bool = False, most: int = 15
) -> Commissioning:
    r"""Return the linac whose apertures give what a tank measured.

    The cost is :math:`\sum ((d - m)/\sigma)^2 + \sum ((p - p_0)/s)^2` over points, output factors and parameters, with
    :math:`\sigma^2 = (0.3\,\%)^2 + (0.2\,mm \cdot m')^2`, so that curves count by dose where they are flat and by
    distance where they are steep, and the usual values and spreads :math:`p_0`, s of parameters: what the curves leave
    open stays usual. Slopes are differences through the aperture engine.

    Parameters
    ----------
    data : TankData
        Curves and output factors of one beam.
    name : str
        Of the machine.
    start : str, optional
        The generic model to begin with; that of the nearest energy when left out.
    incomplete : bool
        Whether a fit may go on without a depth dose and profiles in both directions.
    most : int
        Largest number of steps of the search.

    Raises
    ------
    InputError
        When the data are too few.
    """
    if not incomplete:
        data.check()
    begin = start_model(start, data.energy)
    parameters = parameters_of(begin, data)
    task = _Task(data, begin, name, parameters)
    lower = np.asarray([(p.lower - p.usual) / p.spread for p in parameters])
    upper = np.asarray([(p.upper - p.usual) / p.spread for p in parameters])
    answer = least_squares(
        task.residuals,
        np.zeros(len(parameters)),
        task.slopes(upper),
        (lower, upper),
        xtol=1e-3,
        ftol=1e-4,
        max_nfev=most,
    )
    slopes = np.asarray(answer.jac, dtype=np.float64)
    spreads = np.sqrt(np.diag(np.linalg.inv(slopes.T @ slopes)))
    fitted = tuple(
        FittedParameter(p.name, p.unit, p.usual + u * p.spread, s * p.spread, p.usual, p.spread)
        for p, u, s in zip(parameters, answer.x.tolist(), spreads.tolist(), strict=True)
    )
    model, result = task.calculated(answer.x)
    curves, factors, open_questions = curve_fits(data, result), factor_fits(data, result), _undetermined(fitted, data)
    told = provenance_of(model, fitted, curves, factors, open_questions, begin.name)
    sides = [min(factor.field) for factor in data.output_factors]
    machine = make(model)
    smallest = min([*sides, machine.smallest_field])
    machine = replace(machine, provenance=told, smallest_field=smallest)
    return Commissioning(
        machine=machine,
        model=model,
        parameters=fitted,
        curves=curves,
        factors=factors,
        undetermined=open_questions,
        data=data,
        evaluations=task.evaluations,
    )


class _Task:
    """What a search asks for: residuals and their slopes by parameters in units of their spread."""

    def __init__(self, data: TankData, start: PhotonModel, name: str, parameters: tuple[Parameter, ...]) -> None:
        self.data, self.start, self.name, self.parameters = data, start, name, parameters
        self.evaluations = 0
        self.bends = _bends(parameters)
        self.scales = [_scales(scan) for scan in data.scans]

    def calculated(self, u: Floats) -> tuple[PhotonModel, Predicted]:
        """Return the model at parameters, and what it gives."""
        values = {p.name: p.usual + float(x) * p.spread for p, x in zip(self.parameters, u, strict=True)}
        model = model_of(values, self.start, self.name, self.data)
        self.evaluations += 1
        return model, predicted(make(model), self.data, values["jaw_opening"])

    def residuals(self, u: Floats) -> Floats:
        """Return all residuals in their standard deviations."""
        _, result = self.calculated(u)
        parts = [u, self.bends @ u]
        for scan, dose, scale in zip(self.data.scans, result.curves, self.scales, strict=True):
            parts.append((relative(scan, dose) - relative(scan, scan.dose)) / scale)
        measured = np.asarray([factor.value for factor in self.data.output_factors])
        parts.append((result.factors - measured) / _FACTOR)
        return np.concatenate(parts)

    def slopes(self, upper: Floats) -> Callable[[Floats], Floats]:
        """Return the function that calculates slopes within bounds."""

        def jacobian(u: Floats) -> Floats:
            base, columns = self.residuals(u), []
            for index, _ in each("parameters", list(enumerate(self.parameters))):
                step = _STEP if u[index] + _STEP < upper[index] else -_STEP
                moved = u.copy()
                moved[index] += step
                columns.append((self.residuals(moved) - base) / step)
            return np.stack(columns, axis=1)

        return jacobian


def _scales(scan: TankScan) -> Floats:
    """Return the standard deviations of a curve's points."""
    position, curve = scan.position, relative(scan, scan.dose)
    distance, dose = np.full(position.shape, _DISTANCE), np.full(position.shape, _DOSE)
    if scan.curve == "depth dose":
        distance[position < _SHALLOW] = _SHALLOW_DISTANCE
    else:
        dose[outside(scan)] = _OUTSIDE_DOSE
    alone = np.hypot(dose, distance * np.gradient(curve, position))
    return np.asarray(alone * np.sqrt(max(1.0, position.size / _COUNTED)))


def _bends(parameters: tuple[Parameter, ...]) -> Floats:
    """Return the matrix from parameters to how much more than usual the off-axis fluence bends at each node."""
    nodes = [i for i, parameter in enumerate(parameters) if parameter.name.startswith("off_axis")]
    matrix = np.zeros((max(len(nodes) - 2, 0), len(parameters)))
    for row, (first, middle, last) in enumerate(zip(nodes, nodes[1:], nodes[2:], strict=False)):
        for index, share in ((first, -0.5), (middle, 1.0), (last, -0.5)):
            matrix[row, index] = share * parameters[index].spread / _BEND
    return matrix


def _undetermined(fitted: tuple[FittedParameter, ...], data: TankData) -> tuple[str, ...]:
    """Say what the measurements leave open."""
    said = [
        f"{p.name}: {p.value:.4g} {p.unit}".rstrip() + f" ± {p.uncertainty:.2g}, hardly better than the usual "
        f"{p.usual:.4g} ± {p.spread:.2g}"
        for p in fitted
        if not p.determined
    ]
    radii = node_radii(data)
    if radii:
        said.append(f"off-axis fluence beyond {radii[-1]:.0f} mm: the generic model's shape; wider fields would tell")
    else:
        said.append("off-axis fluence: that of the generic model; profiles would tell")
    sides = [min(factor.field) for factor in data.output_factors] + [min(scan.field) for scan in data.scans]
    said.append(f"output of fields below {min(sides) / 10:g} cm: not measured")
    if data.leaf_axis is None:
        said.append("leaf ends, leaf gap and leaf transmission: no curve lies between leaves")
    else:
        said.append("leaf gap and the calibration of leaf positions: open fields tell only their sum")
    said.append(
        "monitor back-scatter, tongue and groove, the beam's softening off axis: no open field in water tells them"
    )
    return tuple(said)

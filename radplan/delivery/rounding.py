"""Plans in the steps of a plan file: leaves, angles and monitor units as they will be stated and delivered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.machines.limits import MachineLimits

Floats = npt.NDArray[np.float64]

_TIE = 1e-9
"""What a position may lack to half a step and still be rounded up: the noise of floating-point numbers."""


def rounded_plan(plan: DeliveryPlan, limits: MachineLimits) -> DeliveryPlan:
    """Return a plan with positions, angles and monitor units in whole steps of the machine.

    Round before the last dose is calculated: what is judged is then what is exported. Leaves of a pair move alike, so
    that a gap of whole steps stays as wide as it is; moves change by one step at most.

    Parameters
    ----------
    plan : DeliveryPlan
        Any technique.
    limits : MachineLimits
        ``leaf_step`` [mm], ``angle_step`` [degree], ``mu_step`` [MU].

    >>> from radplan.machines.limits import library_limits
    >>> points = [ControlPoint(m, 0.04, 0.0, 0.0, [0, 0, 0], leaves=[[-5.0049, 5.0051]]) for m in (0.0, 99.99951)]
    >>> plan = DeliveryPlan("a", (TreatmentField("AP", 1, tuple(points), 1000.0, [-5.0, 5.0]),))
    >>> point = rounded_plan(plan, library_limits("TrueBeam")).fields[0].points[1]
    >>> point.meterset, point.gantry, point.leaves.tolist()
    (100.0, 0.0, [[-5.0, 5.01]])
    """
    return replace(plan, fields=tuple(_rounded_field(field, limits) for field in plan.fields))


def in_steps(values: npt.ArrayLike, step: float) -> Floats:
    """Return values in whole steps, halves upwards: the nearest decimal fraction of each.

    >>> in_steps([0.004, 0.005, -0.015], 0.01).tolist()
    [0.0, 0.01, -0.01]
    """
    counts = np.floor(np.asarray(values, dtype=np.float64) / step + (0.5 + _TIE))
    per_unit = round(1.0 / step)
    # Why: a division by 100 gives the nearest double to a decimal fraction, a multiplication by 0.01 does not.
    exact: Floats = counts / per_unit if abs(per_unit * step - 1.0) < _TIE else counts * step
    return exact + 0.0


def _rounded_field(field: TreatmentField, limits: MachineLimits) -> TreatmentField:
    return replace(field, points=tuple(_rounded_point(point, limits) for point in field.points))


def _rounded_point(point: ControlPoint, limits: MachineLimits) -> ControlPoint:
    angles = in_steps([point.gantry, point.collimator, point.couch], limits.angle_step) % 360.0
    return replace(
        point,
        meterset=float(in_steps(point.meterset, limits.mu_step)),
        gantry=float(angles[0]),
        collimator=float(angles[1]),
        couch=float(angles[2]),
        leaves=_in_steps(point.leaves, limits.leaf_step),
        jaws_x=_in_steps(point.jaws_x, limits.leaf_step),
        jaws_y=_in_steps(point.jaws_y, limits.leaf_step),
    )


def _in_steps(positions: Floats | None, step: float) -> Floats | None:
    return None if positions is None else in_steps(positions, step)

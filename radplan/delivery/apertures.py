"""The way back from the variables of an aperture model to a plan that a linac delivers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.arrays import Array
from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.delivery.bixel_apertures import BixelApertures
from radplan.engines.aperture.model import ApertureModel
from radplan.engines.aperture.variables import FieldLayout
from radplan.errors import InputError

Floats = npt.NDArray[np.float64]


def delivery_plan(
    model: ApertureModel | BixelApertures, x: Array, name: str = "optimised", fractions: int | None = None
) -> DeliveryPlan:
    """Return the control points that the variables of a model stand for: what is drawn, timed and exported.

    Parameters
    ----------
    model : ApertureModel or BixelApertures
        Made of the plan that the variables started from.
    x : array of shape (count,)
        Its variables, such as ``plan.x`` of an optimised plan; leaves [mm], jaws [mm], monitor units [MU].
    name : str
        Of the plan.
    fractions : int, optional
        Planned number of fractions.

    Raises
    ------
    InputError
        When x does not fit the model, or leaves cross.
    """
    values = np.asarray(arrays.to_numpy(x), dtype=np.float64)
    if values.shape != (model.variables.count,):
        raise InputError(f"the model has {model.variables.count} variables, got an array of shape {values.shape}")
    return DeliveryPlan(name, tuple(_field(layout, values) for layout in model.layouts), fractions)


def _field(layout: FieldLayout, values: Floats) -> TreatmentField:
    leaves = values[layout.leaf_slice].reshape(layout.leaves.shape)[layout.openings]
    jaws = values[layout.jaw_slice].reshape(layout.jaws.shape)[layout.openings]
    given = np.zeros(len(layout.field.points))
    given[np.asarray(layout.delivering) + 1] = values[layout.mu_slice]
    metersets, turn = np.cumsum(given), float(np.sum(values[layout.turn_slice]))
    points = []
    for point, ends, blocks, meterset in zip(layout.field.points, leaves, jaws, metersets, strict=True):
        points.append(
            replace(
                point,
                meterset=float(meterset),
                collimator=(point.collimator + turn) % 360.0 if layout.turns else point.collimator,
                leaves=None if point.leaves is None else ends,
                jaws_x=None if point.jaws_x is None else blocks[:2],
                jaws_y=None if point.jaws_y is None else blocks[2:],
            )
        )
    return replace(layout.field, points=tuple(points))

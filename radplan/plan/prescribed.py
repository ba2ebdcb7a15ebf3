"""What a prescription is written in, and the dose below which a ratio to dose is not told."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from radplan.influence import ForwardModel
from radplan.optim.goals import Goal
from radplan.patient.patient import Patient
from radplan.quantities.base import QUANTITIES, Quantity, unbound

FLOOR_SHARE = 0.01
"""Share of the prescription per fraction below which ratios to dose (LET, RBE) are not told."""


def prescribed_quantity(goals: Sequence[Goal], targets: Collection[str], model: ForwardModel) -> str:
    """Return the name of the quantity that a prescription means: physical dose or an RBE-weighted one.

    It is that of the goal with the highest level that pushes a target up. Where no goal says, it is RBE-weighted dose
    for ions whose biology is known, else physical dose.

    >>> import numpy as np
    >>> from radplan import Dij, Grid
    >>> dij = Dij.from_matrices({"physical_dose": np.ones((1, 1))}, Grid((1, 1, 1), (1, 1, 1), (0, 0, 0)))
    >>> prescribed_quantity((), ("PTV",), dij)
    'physical_dose'
    """
    asked: dict[str, float] = {}
    for goal in goals:
        level = goal.objective.level
        if goal.structure in targets and goal.objective.pushes != "down" and isinstance(level, int | float):
            quantity = goal.quantity if isinstance(goal.quantity, Quantity) else QUANTITIES.get(goal.quantity)
            if quantity.name == "physical_dose" or quantity.unit == "Gy(RBE)":
                asked[quantity.name] = max(asked.get(quantity.name, 0.0), float(level))
    if asked:
        return max(asked, key=lambda name: asked[name])
    return "rbe_x_dose" if model.radiation != "photons" and has_biology(model) else "physical_dose"


def has_biology(model: ForwardModel) -> bool:
    """Whether a model gives RBE-weighted dose: by images of alpha and root beta, or by a constant RBE."""
    return "alpha_dose" in model.images or {"rbe", "alpha_x", "beta_x"} <= set(model.voxel_parameters)


def dose_floor(patient: Patient, fractions: int) -> float | None:
    """Return 1 % of the prescription per fraction [Gy], None where the patient has no prescription.

    >>> from radplan import load_patient
    >>> dose_floor(load_patient("box"), 30)  # 60 Gy
    0.02
    """
    level = patient.prescription
    return None if level is None else FLOOR_SHARE * level / fractions


def floored(quantity: str | Quantity, floor: float | None, images: Collection[str] = ()) -> str | Quantity:
    """Return the ratio to dose that a name means with a floor; everything else as it is.

    Parameters
    ----------
    quantity : str or Quantity
        A name; ``"let"`` and ``"rbe"`` are ratios. An instance keeps the floor it has.
    floor : float, optional
        Smallest dose per fraction to divide by [Gy]; None leaves the quantity's own.
    images : collection of str
        Names that the model gives itself.

    >>> floored("let", 0.018), floored("physical_dose", 0.018)
    (LET(floor=0.018), 'physical_dose')
    """
    if floor is None or not isinstance(quantity, str) or quantity in images or not QUANTITIES.get(quantity).ratio:
        return quantity
    meant: Quantity = unbound(QUANTITIES.get(quantity)).floored(floor)
    return meant

"""A plan beside another dose: the gamma index, isodoses and the mean difference in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radplan.analysis.agreement import isodose_dice, mean_absolute_difference
from radplan.analysis.gamma import Gamma, GammaCriteria, gamma_index
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.plan.course import Plan


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well a dose agrees with a reference.

    Parameters
    ----------
    gamma : Gamma
        On the grid of the reference; `passing` [%], `mean`, `values`.
    isodose_dice : dict of float to float
        Isodose [%] -> Dice coefficient, where the reference is above the threshold of gamma.
    mean_absolute_difference : float
        Over the points that gamma was judged at [Gy].
    """

    gamma: Gamma
    isodose_dice: dict[float, float]
    mean_absolute_difference: float

    @property
    def passing(self) -> float:
        """Share of judged points with gamma of one or less [%]."""
        return self.gamma.passing

    def __repr__(self) -> str:
        told = ", ".join(f"{percent:g} %: {value:.3f}" for percent, value in self.isodose_dice.items())
        return (
            f"Agreement({self.passing:.2f} % pass {self.gamma.criteria}, isodose Dice {{{told}}}, "
            f"mean |difference| {self.mean_absolute_difference:.3f} Gy)"
        )


def gamma(
    dose: Plan | ArrayLike,
    reference: Plan | ArrayLike,
    percent: float = 3.0,
    distance: float = 3.0,
    threshold: float = 10.0,
    local: bool = False,
    grid: Grid | None = None,
    reference_grid: Grid | None = None,
    region: ArrayLike | None = None,
) -> Agreement:
    """Return the gamma index of a dose against a reference, with isodose Dice and mean absolute difference beside it.

    Parameters
    ----------
    dose, reference : Plan or array of shape (nz, ny, nx)
        A plan (its physical dose), or course dose [Gy] on a grid that is given.
    percent, distance, threshold, local
        Criteria, as `radplan.analysis.gamma.GammaCriteria` takes them [%, mm, % of the maximum].
    grid, reference_grid : Grid, optional
        Of arrays; `reference_grid` is `grid` when left out.
    region : array of bool on the reference's grid, optional
        Where to judge.

    Raises
    ------
    InputError
        When an array comes without a grid, or shapes do not fit.

    >>> ours = Grid((1, 1, 5), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    >>> found = gamma(np.full((1, 1, 5), 1.02), np.ones((1, 1, 5)), grid=ours)
    >>> found.passing, round(found.mean_absolute_difference, 3), found.isodose_dice[95.0]
    (100.0, 0.02, 1.0)
    """
    tested, own = _on_grid(dose, grid, "grid")
    expected, theirs = _on_grid(
        reference, reference_grid or (None if isinstance(reference, Plan) else own), "reference_grid"
    )
    criteria = GammaCriteria(percent, distance, threshold, local)
    index = gamma_index(tested, own, expected, theirs, criteria, region)
    judged = ~np.isnan(index.values)
    beside = tested if own == theirs else np.asarray(resample_linear(tested, own, theirs))
    inside = judged if region is None else np.asarray(region, dtype=bool)
    dice = isodose_dice(np.where(inside, beside, 0.0), np.where(inside, expected, 0.0), float(expected.max()))
    return Agreement(index, dice, mean_absolute_difference(beside, expected, judged))


def _on_grid(dose: Plan | ArrayLike, grid: Grid | None, name: str) -> tuple[NDArray[Any], Grid]:
    if isinstance(dose, Plan):
        return np.asarray(dose["physical_dose"], dtype=np.float64), dose.model.grid
    if grid is None:
        raise InputError(f"a dose given as an array needs its grid: give {name}=")
    return np.asarray(dose, dtype=np.float64), grid

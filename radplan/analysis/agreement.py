"""How well two doses agree beside gamma: their isodoses, and their mean difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radplan.errors import InputError

ISODOSES = (20.0, 50.0, 80.0, 90.0, 95.0, 100.0)
"""Isodoses that are compared unless others are asked for [% of the level that counts as 100]."""


def isodose_dice(
    dose: ArrayLike, reference: ArrayLike, full: float | None = None, percents: Sequence[float] = ISODOSES
) -> dict[float, float]:
    r"""Return the Dice coefficient of the volumes within isodoses, :math:`2 |A \cap B| / (|A| + |B|)`.

    Parameters
    ----------
    dose, reference : array
        Of one shape, on the same grid [Gy].
    full : float, optional
        The dose that counts as 100 %, such as the prescription [Gy]; the reference's maximum otherwise.
    percents : sequence of float
        Isodoses [%].

    Returns
    -------
    dict of float to float
        Isodose [%] -> Dice coefficient in [0, 1]; NaN where neither dose reaches it.

    Raises
    ------
    InputError
        When shapes differ, or the level is not positive.

    Source: Dice, Ecology 26 (1945) 297.

    >>> isodose_dice([1.0, 2.0, 2.0], [2.0, 2.0, 1.0], full=2.0, percents=[100.0])
    {100.0: 0.5}
    """
    ours, theirs = _pair(dose, reference)
    level = float(theirs.max()) if full is None else float(full)
    if not level > 0.0:
        raise InputError(f"the dose that counts as 100 % must be > 0 Gy, got {level}")
    found: dict[float, float] = {}
    for percent in percents:
        inside, expected = ours >= 0.01 * percent * level, theirs >= 0.01 * percent * level
        both = int(np.count_nonzero(inside)) + int(np.count_nonzero(expected))
        found[float(percent)] = 2.0 * int(np.count_nonzero(inside & expected)) / both if both else float("nan")
    return found


def mean_absolute_difference(dose: ArrayLike, reference: ArrayLike, region: ArrayLike | None = None) -> float:
    """Return the mean absolute difference of two doses on one grid [Gy].

    Parameters
    ----------
    dose, reference : array
        Of one shape [Gy].
    region : array of bool, optional
        Where; None: everywhere.

    Raises
    ------
    InputError
        When shapes differ or the region is empty.

    >>> mean_absolute_difference([1.0, 2.0, 4.0], [1.0, 3.0, 2.0])
    1.0
    """
    ours, theirs = _pair(dose, reference)
    where = np.ones(ours.shape, dtype=bool) if region is None else np.asarray(region, dtype=bool)
    if where.shape != ours.shape or not where.any():
        raise InputError(f"the region must be bool of shape {ours.shape} and hold a voxel, got shape {where.shape}")
    return float(np.abs(ours - theirs)[where].mean())


def _pair(dose: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ours, theirs = np.asarray(dose, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if ours.shape != theirs.shape:
        raise InputError(f"two doses of one grid have one shape, got {ours.shape} and {theirs.shape}")
    return ours, theirs

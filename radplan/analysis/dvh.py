r"""Cumulative dose-volume histograms of weighted voxels.

Symbols: :math:`d_i` value of voxel i, :math:`w_i \ge 0` its share of the structure's volume. ``(m,)`` everywhere.
The histogram is exact: a sort and a running sum, no binning; ``levels`` only says where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radplan.errors import InputError

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DVH:
    """Share of one structure's volume that gets at least a level.

    Parameters
    ----------
    structure : str
        Its name.
    quantity, unit : str
        What is on the level axis, and its unit.
    levels : array of shape (k,) [unit of the quantity]
        Ascending.
    percent : array of shape (k,) [%]
        Volume at or above each level; falls from 100.
    volume : float [cm3]
        Volume of the whole structure.

    >>> import numpy as np
    >>> DVH("PTV", "physical_dose", "Gy", np.array([0.0, 2.0]), np.array([100.0, 40.0]), 20.0).cc
    array([20.,  8.])
    """

    structure: str
    quantity: str
    unit: str
    levels: Values
    percent: Values
    volume: float

    @property
    def cc(self) -> Values:
        """Volume at or above each level, shape (k,) [cm3]."""
        return self.percent / 100.0 * self.volume


def checked(values: ArrayLike, weights: ArrayLike | None) -> tuple[Values, Values]:
    """Finite values and weights that sum to one, both (m,) float64; equal weights when none are given.

    Raises
    ------
    InputError
        No voxel, different lengths, NaN or infinite values, negative weights or weights that are all zero.

    >>> checked([1.0, 2.0], [3.0, 1.0])[1]
    array([0.75, 0.25])
    """
    d = np.asarray(values, dtype=np.float64).ravel()
    w = np.ones_like(d) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    if d.size == 0:
        raise InputError("a structure without voxels on the dose grid has no DVH; use a finer grid or drop it")
    if d.shape != w.shape:
        raise InputError(f"{d.size} values but {w.size} weights; expected one weight for each voxel")
    if not np.all(np.isfinite(d)):
        raise InputError(f"{np.count_nonzero(~np.isfinite(d))} of {d.size} voxel values are NaN or infinite")
    if not np.all(np.isfinite(w)) or w.min() < 0 or w.sum() <= 0:
        raise InputError("voxel weights must be finite, >= 0 and not all zero")
    inside = w > 0
    return d[inside], w[inside] / w.sum()


def cumulative_dvh(values: ArrayLike, weights: ArrayLike | None, levels: ArrayLike) -> Values:
    r"""Volume that gets at least a level, :math:`V(\ell) = 100 \sum_{d_i \ge \ell} w_i / \sum_i w_i`.

    Parameters
    ----------
    values : array of shape (m,) [unit of the quantity]
        Voxel values of the structure.
    weights : array of shape (m,) or None
        Share of each voxel, >= 0; equal when None.
    levels : array of shape (k,) [unit of the quantity]
        Where to read the histogram.

    Returns
    -------
    array of shape (k,) [%]

    Source: Drzymala et al., Int. J. Radiat. Oncol. Biol. Phys. 21 (1991) 71.

    >>> cumulative_dvh([1.0, 2.0, 3.0, 4.0], None, [0.0, 2.0, 3.5])
    array([100.,  75.,  25.])
    """
    d, w = checked(values, weights)
    order = np.argsort(d, kind="stable")
    above = np.concatenate([np.cumsum(w[order][::-1])[::-1], [0.0]])
    first = np.searchsorted(d[order], np.asarray(levels, dtype=np.float64), side="left")
    return np.asarray(100.0 * above[first] / above[0], dtype=np.float64)


def common_levels(values: Mapping[str, Values], count: int = 501) -> Values:
    """Levels from 0 to just above the highest value of any structure, shape (count,).

    >>> common_levels({"a": np.array([50.0])}, count=3)
    array([ 0.  , 25.25, 50.5 ])
    """
    top = max((float(np.max(v)) for v in values.values() if v.size), default=0.0)
    return np.linspace(0.0, 1.01 * top if top > 0 else 1.0, count)

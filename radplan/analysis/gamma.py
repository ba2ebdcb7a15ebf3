r"""The gamma index: how far a dose is from a reference in dose and in distance at once.

.. math:: \gamma(r) = \min_s \sqrt{|s|^2 / \Delta r^2 + (D(r + s) - D_{ref}(r))^2 / \Delta D^2}

The dose under test is trilinear between its voxels, searched in steps of a fraction of the distance, and then in
halving steps around the best of them.
Source: Low et al., Med. Phys. 25 (1998) 656.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radplan.errors import InputError
from radplan.geometry.grid import Grid

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GammaCriteria:
    """What counts as one, and where gamma is judged.

    Parameters
    ----------
    percent : float
        Dose difference that counts as one [%], of the reference's maximum, or of its dose there where `local`.
    distance : float
        Distance that counts as one [mm].
    threshold : float
        Reference points below this share of its maximum are not judged [%].
    local : bool
        Whether the difference is relative to the dose at each point.
    steps : int
        Search steps within `distance`, before the best of them is refined.
    largest : float
        Where the search ends: points farther off have this gamma.

    Raises
    ------
    InputError
        When a number is not positive.

    >>> str(GammaCriteria())
    '3 %/3 mm global, above 10 %'
    """

    percent: float = 3.0
    distance: float = 3.0
    threshold: float = 10.0
    local: bool = False
    steps: int = 10
    largest: float = 1.5

    def __post_init__(self) -> None:
        for name in ("percent", "distance", "steps", "largest"):
            if not (self.__dict__[name] > 0 and math.isfinite(self.__dict__[name])):
                raise InputError(f"gamma: {name} must be > 0, got {self.__dict__[name]}")
        if not 0 <= self.threshold < 100:
            raise InputError(f"gamma: threshold must lie in [0, 100) %, got {self.threshold}")

    def __str__(self) -> str:
        kind = "local" if self.local else "global"
        return f"{self.percent:g} %/{self.distance:g} mm {kind}, above {self.threshold:g} %"


@dataclass(frozen=True, eq=False)
class Gamma:
    """The gamma index on the grid of the reference.

    Parameters
    ----------
    criteria : GammaCriteria
        What it was calculated with.
    values : array of shape (nz, ny, nx)
        Gamma, NaN where it is not judged.

    >>> found = Gamma(GammaCriteria(), np.asarray([[[0.5, 1.5, np.nan, 1.0]]]))
    >>> round(found.passing, 2), found.points, found.mean
    (66.67, 3, 1.0)
    """

    criteria: GammaCriteria
    values: Floats = field(repr=False)

    @property
    def points(self) -> int:
        """Number of points that were judged."""
        return int(np.count_nonzero(~np.isnan(self.values)))

    @property
    def passing(self) -> float:
        """Share of judged points with gamma of one or less [%]."""
        return 100.0 * int(np.count_nonzero(self.values <= 1.0)) / self.points

    @property
    def mean(self) -> float:
        """Mean over the judged points."""
        return float(np.nanmean(self.values))


def gamma_index(
    dose: ArrayLike,
    grid: Grid,
    reference: ArrayLike,
    reference_grid: Grid,
    criteria: GammaCriteria | None = None,
    region: ArrayLike | None = None,
) -> Gamma:
    """Return the gamma index of a dose against a reference.

    Parameters
    ----------
    dose : array of shape grid.shape
        The dose under test [Gy].
    grid : Grid
        Its grid.
    reference : array of shape reference_grid.shape
        What it should be [Gy].
    reference_grid : Grid
        Its grid; every voxel centre above the threshold that lies on `grid` is judged.
    criteria : GammaCriteria, optional
        3 % of the maximum and 3 mm above 10 % otherwise.
    region : array of bool of shape reference_grid.shape, optional
        Where to judge; None: everywhere.

    Raises
    ------
    InputError
        When shapes do not fit, a value is not finite, or no point is left to judge.

    >>> grid = Grid((1, 1, 5), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    >>> found = gamma_index(np.full((1, 1, 5), 1.02), grid, np.ones((1, 1, 5)), grid)
    >>> round(float(found.values[0, 0, 2]), 4)  # 2 % of 3 %
    0.6667
    """
    from radplan.kernels.gamma import search

    chosen = GammaCriteria() if criteria is None else criteria
    try:
        tested, expected = np.asarray(dose, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"gamma: doses must be arrays of numbers ({error})") from None
    for name, values, place in (("dose", tested, grid), ("reference", expected, reference_grid)):
        if values.shape != place.shape:
            raise InputError(f"gamma: the {name} of shape {values.shape} does not fit its grid of {place.shape}")
        if not np.all(np.isfinite(values)):
            raise InputError(f"gamma: the {name} holds values that are not finite")
    top = float(expected.max())
    judged = expected > 0.01 * chosen.threshold * top
    if region is not None:
        where = np.asarray(region, dtype=bool)
        if where.shape != reference_grid.shape:
            raise InputError(
                f"gamma: the region of shape {where.shape} does not fit the reference's grid of {reference_grid.shape}"
            )
        judged &= where
    voxels = np.flatnonzero(judged)
    index = grid.index(reference_grid.points(voxels))
    held = np.all((index >= -1e-9) & (index <= np.asarray(grid.shape) - 1 + 1e-9), axis=1)
    voxels, index = voxels[held], np.clip(index[held], 0.0, np.asarray(grid.shape) - 1.0)
    if voxels.size == 0:
        raise InputError(
            f"gamma: no point of the reference above {chosen.threshold:g} % of its maximum ({top:g} Gy) lies on the "
            "dose grid: do both share coordinates?"
        )
    at = expected.reshape(-1)[voxels]
    tolerance = 0.01 * chosen.percent * (at if chosen.local else np.full(at.size, top))
    searched = np.asarray([count > 1 for count in grid.shape])
    per_step = chosen.distance / np.asarray(grid.spacing[::-1]) * searched
    values = np.full(expected.size, np.nan)
    values[voxels] = search(
        tested, index, at, tolerance, _shifts(chosen, searched), per_step, 1.0 / chosen.steps, chosen.largest
    )
    return Gamma(chosen, values.reshape(expected.shape))


def _shifts(criteria: GammaCriteria, searched: NDArray[np.bool_]) -> Floats:
    """Return the shifts to try ``(m, 3)`` [distances] along the axes that are searched, nearest first."""
    reach = math.ceil(criteria.steps * criteria.largest)
    axes = [np.arange(-reach, reach + 1) if wanted else np.zeros(1) for wanted in searched]
    steps = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) / criteria.steps
    lengths = np.sum(steps**2, axis=1)
    order = np.argsort(lengths, kind="stable")
    return np.ascontiguousarray(steps[order[lengths[order] <= criteria.largest**2]])

"""Objectives whose value is a dose or a volume: dose at a volume, means of the hottest and coldest share, volume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from radplan.arrays import Array, accumulator, namespace, scatter, weighted_sum
from radplan.errors import InputError
from radplan.optim.objectives.base import OBJECTIVES, Objective, Pushes, finite_number, volume_fraction

_BAND = 0.01
"""Share of the volume around a rank over which a dose at a volume is averaged."""


@OBJECTIVES.register
@dataclass(frozen=True)
class DoseAtVolume(Objective):
    r"""The dose that the hottest volume V reaches at least, :math:`D_V`, averaged over ranks within V +- 0.5 %.

    With voxels in falling order and each one a slice of the cumulative volume, the value is the mean of the slices in a
    band of 1 % of the volume (at least one voxel) about V: piecewise linear, and continuous in the dose. Its gradient
    acts on the voxels in the band. `measured` is the metric itself, without the band. Not convex but for V = 0 and 1.
    A constraint on it is held voxel by voxel by `AugmentedLagrangian`, with a margin of one voxel.

    Parameters
    ----------
    volume : float
        Fraction of the structure in [0, 1]: 0 is the maximum, 0.1 is D10, 1 the minimum.

    Raises
    ------
    InputError
        When `volume` is not a fraction.

    Source: ICRU Report 83 (2010) for D_V; Romeijn et al., Phys. Med. Biol. 48 (2003) 3521 for the band of ranks.

    >>> import numpy as np
    >>> float(DoseAtVolume(0.5).value(np.asarray([10.0, 20.0, 30.0, 40.0]), np.full(4, 0.25)))
    25.0
    """

    volume: float

    name = "dose_at_volume"

    def __post_init__(self) -> None:
        volume_fraction(self, self.volume)

    def value(self, values: Array, weights: Array) -> Array:
        return weighted_sum(values, self.gradient(values, weights))

    def gradient(self, values: Array, weights: Array) -> Array:
        return weights_of_ranks(values, weights, *self._band(weights))

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        gradient = self.gradient(values, weights)
        return weighted_sum(values, gradient), gradient

    def measured(self, values: Array, weights: Array) -> Array:
        xp = namespace(values, weights)
        order, start, end = ranks(values, weights)
        middle, falling = 0.5 * (start + end), xp.take(values, order)
        last = values.shape[0] - 1
        after = xp.reshape(xp.sum(xp.astype(middle < self.volume, xp.int64)), (1,))
        low, high = xp.clip(after - 1, min=0), xp.clip(after, max=last)
        gap = xp.take(middle, high) - xp.take(middle, low)
        part = (self.volume - xp.take(middle, low)) / xp.where(gap > 0.0, gap, xp.ones_like(gap))
        share = xp.astype(xp.clip(part, min=0.0, max=1.0), values.dtype)
        return xp.reshape((1.0 - share) * xp.take(falling, low) + share * xp.take(falling, high), ())

    def voxel_bounds(
        self, values: Array, weights: Array, lower: float, upper: float, margin: float
    ) -> tuple[Array, Array] | None:
        return _bounds_by_rank(values, weights, (lower, self.volume), (upper, self.volume), 0.5)

    def value_unit(self, of: str) -> str:
        return of

    @property
    def pushes(self) -> Pushes:
        return "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(0.1), cls(0.5), cls(0.0), cls(1.0)]

    def _band(self, weights: Array) -> tuple[Array, Array]:
        """Return the ends of the band of ranks, shape () each: centred on the volume, at least one voxel wide."""
        xp = namespace(weights)
        voxel = 0.5 * weighted_sum(weights, weights)
        half = xp.maximum(voxel, xp.full_like(voxel, min(0.5 * _BAND, self.volume, 1.0 - self.volume)))
        return xp.clip(self.volume - half, min=0.0), xp.clip(self.volume + half, max=1.0)


@OBJECTIVES.register
@dataclass(frozen=True)
class MeanOfHottest(Objective):
    r"""Mean dose of the hottest volume V, :math:`\frac{1}{V} \int_0^V D_v\,\mathrm{d}v` (conditional value at risk).

    Convex, and at least :math:`D_V`: an upper bound on it implies the bound on the dose at that volume.

    Parameters
    ----------
    volume : float
        Fraction of the structure in (0, 1]; 1 is the mean.

    Raises
    ------
    InputError
        When `volume` is not a fraction above 0.

    Source: Romeijn, Ahuja, Dempsey and Kumar, Phys. Med. Biol. 48 (2003) 3521.

    >>> import numpy as np
    >>> float(MeanOfHottest(0.5).value(np.asarray([10.0, 20.0, 30.0, 40.0]), np.full(4, 0.25)))
    35.0
    """

    volume: float

    name = "mean_of_hottest"

    def __post_init__(self) -> None:
        _some_volume(self, self.volume)

    def value(self, values: Array, weights: Array) -> Array:
        return weighted_sum(values, self.gradient(values, weights))

    def gradient(self, values: Array, weights: Array) -> Array:
        zero = 0.0 * weighted_sum(weights, weights)
        return weights_of_ranks(values, weights, zero, zero + self.volume)

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        gradient = self.gradient(values, weights)
        return weighted_sum(values, gradient), gradient

    def value_unit(self, of: str) -> str:
        return of

    @property
    def pushes(self) -> Pushes:
        return "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(0.1), cls(0.5), cls(1.0)]


@OBJECTIVES.register
@dataclass(frozen=True)
class MeanOfColdest(Objective):
    r"""Mean dose of the coldest volume V, :math:`\frac{1}{V} \int_{1-V}^1 D_v\,\mathrm{d}v`.

    Concave, and at most :math:`D_{1-V}`: a lower bound on it implies the bound on the dose at that volume. As a goal it
    drives the coldest voxels down; give it to a constraint.

    Parameters
    ----------
    volume : float
        Fraction of the structure in (0, 1]; 1 is the mean.

    Raises
    ------
    InputError
        When `volume` is not a fraction above 0.

    Source: as `MeanOfHottest`.

    >>> import numpy as np
    >>> float(MeanOfColdest(0.5).value(np.asarray([10.0, 20.0, 30.0, 40.0]), np.full(4, 0.25)))
    15.0
    """

    volume: float

    name = "mean_of_coldest"

    def __post_init__(self) -> None:
        _some_volume(self, self.volume)

    def value(self, values: Array, weights: Array) -> Array:
        return weighted_sum(values, self.gradient(values, weights))

    def gradient(self, values: Array, weights: Array) -> Array:
        zero = 0.0 * weighted_sum(weights, weights)
        return weights_of_ranks(-values, weights, zero, zero + self.volume)

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        gradient = self.gradient(values, weights)
        return weighted_sum(values, gradient), gradient

    def value_unit(self, of: str) -> str:
        return of

    @property
    def pushes(self) -> Pushes:
        return "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(0.05), cls(0.5), cls(1.0)]


@OBJECTIVES.register
@dataclass(frozen=True)
class VolumeAtDose(Objective):
    r"""Volume that gets at least a level, smoothed: :math:`100 \sum_i w_i / (1 + e^{-(x_i - x_\mathrm{ref})/s})` in %.

    Smooth, not convex. `measured` is the metric itself, without smoothing. A constraint on it is held voxel by voxel by
    `AugmentedLagrangian`. matRad constrains the same volume (``MinMaxDVH``) with another smoothing.

    Parameters
    ----------
    reference : float
        The level [unit of the quantity].
    width : float
        The smoothing s [unit of the quantity], > 0.

    Raises
    ------
    InputError
        When a number is not finite or `width` is not > 0.

    Source: Romeijn et al., Phys. Med. Biol. 48 (2003) 3521 (the volume); the logistic function smooths its step.

    >>> import numpy as np
    >>> float(VolumeAtDose(20.0, width=0.5).value(np.asarray([20.0, 0.0]), np.asarray([0.5, 0.5])))
    25.0
    """

    reference: float
    width: float = 0.5

    name = "volume_at_dose"

    def __post_init__(self) -> None:
        finite_number(self, reference=self.reference, width=self.width)
        if self.width <= 0.0:
            raise InputError(f"{self.name}: width must be > 0, got {self.width!r}")

    def value(self, values: Array, weights: Array) -> Array:
        return 100.0 * weighted_sum(self._reached(values), weights)

    def gradient(self, values: Array, weights: Array) -> Array:
        reached = self._reached(values)
        return (100.0 / self.width) * weights * reached * (1.0 - reached)

    def measured(self, values: Array, weights: Array) -> Array:
        return 100.0 * weighted_sum(namespace(values).astype(values >= self.reference, values.dtype), weights)

    def voxel_bounds(
        self, values: Array, weights: Array, lower: float, upper: float, margin: float
    ) -> tuple[Array, Array] | None:
        least = (self.reference + margin if lower > 0.0 else -math.inf, 0.01 * max(lower, 0.0))
        most = (self.reference - margin if upper < 100.0 else math.inf, 0.01 * min(upper, 100.0))
        return _bounds_by_rank(values, weights, least, most, 0.0)

    def value_unit(self, of: str) -> str:
        return "%"

    @property
    def pushes(self) -> Pushes:
        return "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(1.0), cls(1.5, 0.2)]

    def _reached(self, values: Array) -> Array:
        xp = namespace(values)
        # Why: tanh does not overflow where exp does.
        return 0.5 + 0.5 * xp.tanh((0.5 / self.width) * (values - self.reference))


def weights_of_ranks(values: Array, weights: Array, low: Array, high: Array) -> Array:
    """Return the weights ``(m,)``, sum 1, of the part of each voxel whose rank lies between two volumes.

    Parameters
    ----------
    values, weights : array of shape (m,)
        Values and weights, the latter >= 0 with sum 1; the largest value has rank 0.
    low, high : array of shape ()
        Ends of the ranks, low < high, in [0, 1].

    >>> import numpy as np
    >>> values, weights = np.asarray([1.0, 3.0, 2.0]), np.asarray([0.25, 0.5, 0.25])
    >>> weights_of_ranks(values, weights, np.asarray(0.25), np.asarray(0.75)).tolist()
    [0.0, 0.5, 0.5]
    """
    xp = namespace(values, weights)
    order, start, end = ranks(values, weights)
    low, high = xp.astype(low, end.dtype), xp.astype(high, end.dtype)
    share = xp.clip(xp.minimum(end, high) - xp.maximum(start, low), min=0.0)
    return scatter(values.shape[0], order, xp.astype(share / xp.sum(share), weights.dtype))


def ranks(values: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return the voxels in falling order, and where each one's slice of the volume starts and ends, ``(m,)`` each.

    >>> import numpy as np
    >>> order, start, end = ranks(np.asarray([1.0, 3.0]), np.asarray([0.25, 0.75]))
    >>> order.tolist(), start.tolist(), end.tolist()
    ([1, 0], [0.0, 0.75], [0.75, 1.0])
    """
    xp = namespace(values, weights)
    order = xp.argsort(values, descending=True)
    share = xp.astype(xp.take(weights, order), accumulator(weights))
    end = xp.cumulative_sum(share)
    return order, end - share, end / end[-1]


def _bounds_by_rank(
    values: Array, weights: Array, lower: tuple[float, float], upper: tuple[float, float], spare: float
) -> tuple[Array, Array]:
    """Return bounds ``(m,)`` on voxels: (level, volume) below for all but the coldest, above for all but the hottest.

    A voxel goes free when its slice ends a share `spare` of itself before the volume does.
    """
    xp = namespace(values, weights)
    order, start, end = ranks(values, weights)
    room = spare * (end - start)
    free_above = end + room <= upper[1]
    free_below = start - room >= lower[1]
    bound = xp.zeros_like(values)
    least = xp.where(free_below, bound - math.inf, bound + lower[0])
    most = xp.where(free_above, bound + math.inf, bound + upper[0])
    back = xp.argsort(order)
    return xp.take(least, back), xp.take(most, back)


def _some_volume(owner: Objective, volume: float) -> None:
    volume_fraction(owner, volume)
    if volume == 0.0:
        raise InputError(f"{owner.name}: volume must be > 0; for the extreme take dose_at_volume with volume 0 or 1")

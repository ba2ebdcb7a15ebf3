"""Penalties that ask for one point of the dose-volume histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from radplan.arrays import Array, namespace, scatter, weighted_sum
from radplan.optim.objectives.base import OBJECTIVES, Objective, Pushes, finite_number, volume_fraction


@OBJECTIVES.register
@dataclass(frozen=True)
class MaxDVH(Objective):
    r"""Squared excess over a level in all but the hottest part of the structure.

    .. math:: f = \sum_i w'_i \max(x_i - x_\mathrm{ref}, 0)^2

    with :math:`w'` the weights less the hottest volume V, the voxel at the edge counted in part. It is 0 exactly when
    at most the volume V exceeds the level. A sum of smallest terms: continuous, not convex, and its gradient is exact
    wherever no two voxels at the edge are equal, so it needs no smoothing width. matRad: ``MaxDVH``, which leaves out
    one voxel fewer.

    Parameters
    ----------
    reference : float
        Level that the rest of the structure shall not exceed [unit of the quantity].
    volume : float
        Fraction of the structure that may exceed it, in [0, 1].

    Raises
    ------
    InputError
        When `reference` is not a finite number or `volume` not a fraction.

    Source: Bortfeld, Stein and Preiss, Proc. XII ICCR (1997) 1; Wu and Mohan, Med. Phys. 27 (2000) 701.

    >>> import numpy as np
    >>> float(MaxDVH(1.0, volume=0.5).value(np.asarray([3.0, 9.0]), np.asarray([0.5, 0.5])))
    2.0
    """

    reference: float
    volume: float

    name = "max_dvh"

    def __post_init__(self) -> None:
        finite_number(self, reference=self.reference)
        volume_fraction(self, self.volume)

    def value(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[0]

    def gradient(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[1]

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        excess = namespace(values).clip(values - self.reference, min=0.0)
        weighted = weights_without_largest(values, weights, self.volume) * excess
        return weighted_sum(excess, weighted), 2.0 * weighted

    def curvature(self, values: Array, weights: Array) -> Array:
        kept = weights_without_largest(values, weights, self.volume)
        return 2.0 * kept * namespace(values).astype(values > self.reference, weights.dtype)

    @property
    def level(self) -> float:
        return self.reference

    @property
    def pushes(self) -> Pushes:
        return "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(1.0, 0.2), cls(1.0, 0.0)]


@OBJECTIVES.register
@dataclass(frozen=True)
class MinDVH(Objective):
    r"""Squared shortfall below a level in all but the coldest part of the structure.

    .. math:: f = \sum_i w'_i \min(x_i - x_\mathrm{ref}, 0)^2

    with :math:`w'` the weights of the hottest volume V, the voxel at the edge counted in part. It is 0 exactly when at
    least the volume V reaches the level. Smoothness as `MaxDVH`. matRad: ``MinDVH``.

    Parameters
    ----------
    reference : float
        Level to be reached [unit of the quantity].
    volume : float
        Fraction of the structure that shall reach it, in [0, 1].

    Raises
    ------
    InputError
        When `reference` is not a finite number or `volume` not a fraction.

    Source: as `MaxDVH`.

    >>> import numpy as np
    >>> float(MinDVH(4.0, volume=0.5).value(np.asarray([0.0, 2.0]), np.asarray([0.5, 0.5])))
    2.0
    """

    reference: float
    volume: float

    name = "min_dvh"

    def __post_init__(self) -> None:
        finite_number(self, reference=self.reference)
        volume_fraction(self, self.volume)

    def value(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[0]

    def gradient(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[1]

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        shortfall = namespace(values).clip(values - self.reference, max=0.0)
        weighted = weights_without_largest(-values, weights, 1.0 - self.volume) * shortfall
        return weighted_sum(shortfall, weighted), 2.0 * weighted

    def curvature(self, values: Array, weights: Array) -> Array:
        kept = weights_without_largest(-values, weights, 1.0 - self.volume)
        return 2.0 * kept * namespace(values).astype(values < self.reference, weights.dtype)

    @property
    def level(self) -> float:
        return self.reference

    @property
    def pushes(self) -> Pushes:
        return "up"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(1.5, 0.95), cls(2.0, 1.0)]


def weights_without_largest(values: Array, weights: Array, volume: float) -> Array:
    """Return the weights with the share `volume` of the largest values taken out, the voxel at the edge in part.

    Parameters
    ----------
    values, weights : array of shape (m,)
        Values and weights, the latter >= 0 with sum 1.
    volume : float
        Weight to take out, in [0, 1].

    >>> import numpy as np
    >>> weights_without_largest(np.asarray([1.0, 3.0, 2.0]), np.asarray([0.25, 0.5, 0.25]), 0.625).tolist()
    [0.25, 0.0, 0.125]
    """
    xp = namespace(values, weights)
    order = xp.argsort(values, descending=True)
    sorted_weights = xp.take(weights, order)
    reached = xp.cumulative_sum(sorted_weights, dtype=xp.float64)
    kept = xp.clip(xp.astype(reached - volume, weights.dtype), min=0.0)
    return scatter(values.shape[0], order, xp.minimum(kept, sorted_weights))

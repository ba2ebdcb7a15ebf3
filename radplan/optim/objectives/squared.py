"""Quadratic penalties on values above, below or away from a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from radplan.arrays import Array, namespace, weighted_sum
from radplan.optim.objectives.base import OBJECTIVES, Objective, Pushes, finite_number


@OBJECTIVES.register
@dataclass(frozen=True)
class SquaredDeviation(Objective):
    r"""Mean squared distance from a level, :math:`\sum_i w_i (x_i - x_\mathrm{ref})^2`.

    Convex and smooth. matRad: ``SquaredDeviation``.

    Parameters
    ----------
    reference : float
        The level wanted in every voxel [unit of the quantity].

    Raises
    ------
    InputError
        When `reference` is not a finite number.

    Source: Bortfeld et al., Phys. Med. Biol. 35 (1990) 1423.

    >>> import numpy as np
    >>> float(SquaredDeviation(2.0).value(np.asarray([1.0, 4.0]), np.asarray([0.5, 0.5])))
    2.5
    """

    reference: float

    name = "squared_deviation"

    def __post_init__(self) -> None:
        finite_number(self, reference=self.reference)

    def value(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[0]

    def gradient(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[1]

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        return _mean_square(values - self.reference, weights)

    def curvature(self, values: Array, weights: Array) -> Array:
        return 2.0 * weights

    @property
    def level(self) -> float:
        return self.reference

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(1.0), cls(0.0)]


@OBJECTIVES.register
@dataclass(frozen=True)
class SquaredOverdosing(Objective):
    r"""Mean squared excess over a level, :math:`\sum_i w_i \max(x_i - x_\mathrm{ref}, 0)^2`.

    Convex, with a continuous gradient. matRad: ``SquaredOverdosing``.

    Parameters
    ----------
    reference : float
        Level above which values are penalised [unit of the quantity].

    Raises
    ------
    InputError
        When `reference` is not a finite number.

    Source: Wu and Mohan, Med. Phys. 27 (2000) 701.

    >>> import numpy as np
    >>> float(SquaredOverdosing(1.0).value(np.asarray([0.0, 3.0]), np.asarray([0.5, 0.5])))
    2.0
    """

    reference: float

    name = "squared_overdosing"

    def __post_init__(self) -> None:
        finite_number(self, reference=self.reference)

    def value(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[0]

    def gradient(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[1]

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        return _mean_square(namespace(values).clip(values - self.reference, min=0.0), weights)

    def curvature(self, values: Array, weights: Array) -> Array:
        return 2.0 * weights * namespace(values).astype(values > self.reference, weights.dtype)

    @property
    def level(self) -> float:
        return self.reference

    @property
    def pushes(self) -> Pushes:
        return "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(1.0), cls(0.0)]


@OBJECTIVES.register
@dataclass(frozen=True)
class SquaredUnderdosing(Objective):
    r"""Mean squared shortfall below a level, :math:`\sum_i w_i \min(x_i - x_\mathrm{ref}, 0)^2`.

    Convex, with a continuous gradient. matRad: ``SquaredUnderdosing``.

    Parameters
    ----------
    reference : float
        Level below which values are penalised [unit of the quantity].

    Raises
    ------
    InputError
        When `reference` is not a finite number.

    Source: as `SquaredOverdosing`.

    >>> import numpy as np
    >>> float(SquaredUnderdosing(1.0).value(np.asarray([0.0, 3.0]), np.asarray([0.5, 0.5])))
    0.5
    """

    reference: float

    name = "squared_underdosing"

    def __post_init__(self) -> None:
        finite_number(self, reference=self.reference)

    def value(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[0]

    def gradient(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[1]

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        return _mean_square(namespace(values).clip(values - self.reference, max=0.0), weights)

    def curvature(self, values: Array, weights: Array) -> Array:
        return 2.0 * weights * namespace(values).astype(values < self.reference, weights.dtype)

    @property
    def level(self) -> float:
        return self.reference

    @property
    def pushes(self) -> Pushes:
        return "up"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(1.0), cls(2.0)]


def _mean_square(distance: Array, weights: Array) -> tuple[Array, Array]:
    weighted = weights * distance
    return weighted_sum(distance, weighted), 2.0 * weighted

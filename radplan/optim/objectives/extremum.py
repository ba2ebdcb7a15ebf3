"""Penalties on the largest and on the smallest value, smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from radplan.arrays import Array, accumulator, namespace
from radplan.errors import InputError
from radplan.optim.objectives.base import OBJECTIVES, Objective, Pushes, finite_number


@OBJECTIVES.register
@dataclass(frozen=True)
class Maximum(Objective):
    r"""The largest value, smoothed: :math:`\varepsilon \ln \sum_i e^{x_i/\varepsilon}`.

    Convex and smooth; at least the true maximum, and above it by at most :math:`\varepsilon \ln m` for m voxels. All
    voxels of the structure with a weight > 0 count alike. matRad: ``MinMaxDose`` with ``approx``.

    Parameters
    ----------
    width : float
        The smoothing :math:`\varepsilon` [unit of the quantity], > 0.

    Raises
    ------
    InputError
        When `width` is not a finite number > 0.

    Source: Boyd and Vandenberghe, Convex Optimization (2004), section 3.1.5.

    >>> import numpy as np
    >>> round(float(Maximum(width=1.0).value(np.asarray([2.0, 2.0]), np.asarray([0.5, 0.5]))), 6)
    2.693147
    """

    width: float = 0.1

    name = "maximum"

    def __post_init__(self) -> None:
        _positive_width(self, self.width)

    def value(self, values: Array, weights: Array) -> Array:
        return _log_sum_exp(values, weights, self.width)[0]

    def gradient(self, values: Array, weights: Array) -> Array:
        return _log_sum_exp(values, weights, self.width)[1]

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        return _log_sum_exp(values, weights, self.width)

    def measured(self, values: Array, weights: Array) -> Array:
        xp = namespace(values)
        return xp.max(xp.where(weights > 0.0, values, -xp.inf))

    def value_unit(self, of: str) -> str:
        return of

    @property
    def pushes(self) -> Pushes:
        return "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(0.5), cls(1.0)]


@OBJECTIVES.register
@dataclass(frozen=True)
class Minimum(Objective):
    r"""The smallest value, smoothed: :math:`-\varepsilon \ln \sum_i e^{-x_i/\varepsilon}`.

    Concave and smooth; at most the true minimum. For a constraint with a lower bound, where `Maximum` takes an upper
    one; as a goal it drives the coldest voxel down.

    Parameters
    ----------
    width : float
        The smoothing :math:`\varepsilon` [unit of the quantity], > 0.

    Raises
    ------
    InputError
        When `width` is not a finite number > 0.

    Source: as `Maximum`.

    >>> import numpy as np
    >>> round(float(Minimum(width=1.0).value(np.asarray([2.0, 2.0]), np.asarray([0.5, 0.5]))), 6)
    1.306853
    """

    width: float = 0.1

    name = "minimum"

    def __post_init__(self) -> None:
        _positive_width(self, self.width)

    def value(self, values: Array, weights: Array) -> Array:
        return -_log_sum_exp(-values, weights, self.width)[0]

    def gradient(self, values: Array, weights: Array) -> Array:
        return _log_sum_exp(-values, weights, self.width)[1]

    def measured(self, values: Array, weights: Array) -> Array:
        xp = namespace(values)
        return xp.min(xp.where(weights > 0.0, values, xp.inf))

    def value_unit(self, of: str) -> str:
        return of

    @property
    def pushes(self) -> Pushes:
        return "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(0.5), cls(1.0)]


def _positive_width(owner: Objective, width: float) -> None:
    finite_number(owner, width=width)
    if width <= 0.0:
        raise InputError(f"{owner.name}: width must be > 0, got {width!r}")


def _log_sum_exp(values: Array, weights: Array, width: float) -> tuple[Array, Array]:
    xp = namespace(values)
    largest = xp.max(xp.where(weights > 0.0, values, -xp.inf))
    powers = xp.where(weights > 0.0, xp.exp(xp.clip((values - largest) / width, max=0.0)), xp.zeros_like(values))
    total = xp.sum(powers, dtype=accumulator(values))
    value = xp.astype(largest, total.dtype) + width * xp.log(total)
    return value, powers / xp.astype(total, values.dtype)

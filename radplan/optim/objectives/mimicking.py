"""A penalty on the distance from a given distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Self

from radplan.arrays import Array, like, namespace, weighted_sum
from radplan.errors import InputError
from radplan.optim.objectives.base import OBJECTIVES, Objective, finite_number


@OBJECTIVES.register
@dataclass(frozen=True, eq=False)
class DoseMimicking(Objective):
    r"""Mean squared distance from a given value in every voxel.

    .. math:: f = \sum_i w_i \bigl(o \max(x_i - r_i, 0)^2 + u \min(x_i - r_i, 0)^2\bigr)

    with :math:`r` the reference distribution. Convex, with a continuous gradient. It turns a predicted or an earlier
    dose distribution into a plan.

    Parameters
    ----------
    reference : array of shape (nz, ny, nx) or (nz ny nx,), or float
        Values to reproduce, on the dose grid [unit of the quantity, course total]; the problem cuts it to the
        structure. A number asks for the same value everywhere.
    overdosing, underdosing : float
        Factors :math:`o, u \ge 0` on the two sides.

    Raises
    ------
    InputError
        When a factor is negative or not finite, or when the reference does not fit the values.

    Source: McIntosh et al., Phys. Med. Biol. 62 (2017) 5926.

    >>> import numpy as np
    >>> mimic = DoseMimicking(np.asarray([1.0, 2.0]), underdosing=0.5)
    >>> float(mimic.value(np.asarray([3.0, 0.0]), np.asarray([0.5, 0.5])))
    3.0
    """

    reference: Array | float
    overdosing: float = 1.0
    underdosing: float = 1.0

    name = "dose_mimicking"

    def __post_init__(self) -> None:
        finite_number(self, overdosing=self.overdosing, underdosing=self.underdosing)
        if min(self.overdosing, self.underdosing) < 0.0:
            given = (self.overdosing, self.underdosing)
            raise InputError(f"dose_mimicking: overdosing and underdosing must be >= 0, got {given}")
        if isinstance(self.reference, Real):
            finite_number(self, reference=float(self.reference))
        elif isinstance(self.reference, str | dict | None):
            raise InputError(
                "dose_mimicking: reference must be an array on the dose grid or a number, "
                f"got {type(self.reference).__name__}; a plan file cannot hold one: set this goal in a script"
            )

    def value(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[0]

    def gradient(self, values: Array, weights: Array) -> Array:
        return self.value_and_gradient(values, weights)[1]

    def value_and_gradient(self, values: Array, weights: Array) -> tuple[Array, Array]:
        xp = namespace(values)
        distance = values - self._beside(values)
        sided = self.overdosing * xp.clip(distance, min=0.0) + self.underdosing * xp.clip(distance, max=0.0)
        weighted = weights * sided
        return weighted_sum(distance, weighted), 2.0 * weighted

    def curvature(self, values: Array, weights: Array) -> Array:
        above = namespace(values).astype(values > self._beside(values), weights.dtype)
        return 2.0 * weights * (self.overdosing * above + self.underdosing * (1.0 - above))

    def on_voxels(self, cut: Callable[[Array], Array]) -> Self:
        return self if isinstance(self.reference, int | float) else replace(self, reference=cut(self.reference))

    def _beside(self, values: Array) -> Array | float:
        if isinstance(self.reference, int | float):
            return self.reference
        if tuple(self.reference.shape) != tuple(values.shape):
            raise InputError(
                f"dose_mimicking: the reference has shape {tuple(self.reference.shape)}, the values "
                f"{tuple(values.shape)}; on its own an objective needs one reference per voxel"
            )
        return like(self.reference, values)

    @property
    def level(self) -> Array | float:
        return self.reference

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(1.0), cls(1.5, overdosing=2.0, underdosing=0.5)]

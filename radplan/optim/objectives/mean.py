"""A penalty on the mean of the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from radplan.arrays import Array, namespace, weighted_sum
from radplan.optim.objectives.base import OBJECTIVES, Objective, Pushes, finite_number, one_of


@OBJECTIVES.register
@dataclass(frozen=True)
class Mean(Objective):
    r"""Distance of the mean from a level, :math:`|\bar x - x_\mathrm{ref}|`, its square, or that on one side.

    Convex. The linear form has a kink where the mean meets the reference; the gradient returned there is 0, and
    :math:`\pm w_i` on either side, the same sign in every voxel. matRad: ``MeanDose``, whose linear gradient takes the
    sign voxel by voxel and so agrees only when all voxels lie on one side of the reference.

    Parameters
    ----------
    reference : float
        The mean wanted [unit of the quantity]; with 0 the mean itself is minimised.
    form : {"linear", "quadratic", "over", "under"}
        Whether the distance counts, its square, or the square where the mean lies above or below the reference.

    Raises
    ------
    InputError
        When `reference` is not a finite number or `form` another word.

    Source: Breedveld et al., Med. Phys. 39 (2012) 951 (mean dose as a criterion).

    >>> import numpy as np
    >>> float(Mean(1.0, form="quadratic").value(np.asarray([1.0, 5.0]), np.asarray([0.5, 0.5])))
    4.0
    """

    reference: float = 0.0
    form: Literal["linear", "quadratic", "over", "under"] = "linear"

    name = "mean"

    def __post_init__(self) -> None:
        finite_number(self, reference=self.reference)
        one_of(self, "form", self.form, ("linear", "quadratic", "over", "under"))

    def value(self, values: Array, weights: Array) -> Array:
        distance = self._distance(values, weights)
        return namespace(values).abs(distance) if self.form == "linear" else distance * distance

    def gradient(self, values: Array, weights: Array) -> Array:
        xp = namespace(values)
        distance = self._distance(values, weights)
        slope = xp.sign(distance) if self.form == "linear" else 2.0 * distance
        return xp.astype(slope, values.dtype) * weights

    def value_unit(self, of: str) -> str:
        return of if self.form == "linear" else f"{of}^2"

    @property
    def level(self) -> float:
        return self.reference

    @property
    def pushes(self) -> Pushes:
        return {"over": "down", "under": "up"}.get(self.form, "both")  # type: ignore[return-value]

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(), cls(1.0), cls(1.0, form="quadratic"), cls(1.0, "over"), cls(2.0, "under")]

    def _distance(self, values: Array, weights: Array) -> Array:
        xp = namespace(values)
        distance = weighted_sum(values, weights) - self.reference
        if self.form == "over":
            return xp.clip(distance, min=0.0)
        return xp.clip(distance, max=0.0) if self.form == "under" else distance

"""A penalty on the generalised equivalent uniform value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from radplan.arrays import Array, namespace, weighted_sum
from radplan.errors import InputError
from radplan.optim.objectives.base import OBJECTIVES, Objective, Pushes, finite_number, one_of

_FLOOR = 1e-6
"""Smallest value that counts, relative to the largest: keeps powers of zero finite."""


@OBJECTIVES.register
@dataclass(frozen=True)
class EUD(Objective):
    r"""Squared distance of the generalised equivalent uniform dose from a level, or that dose itself.

    .. math:: \mathrm{gEUD} = \Bigl(\sum_i w_i x_i^a\Bigr)^{1/a}, \qquad f = (\mathrm{gEUD} - x_\mathrm{ref})^2

    For values >= 0. gEUD goes to the maximum with large a, is the mean at 1 and goes to the minimum with large negative
    a; it is convex for a >= 1 and concave for a <= 1. Powers are taken relative to the largest (a > 0) or smallest
    (a < 0) value, so any exponent is finite. Values below 1e-6 of the largest are raised to that, which gives zeros a
    finite gradient; where all values are zero, it is that of a uniform rise. matRad: ``EUD`` (form "deviation").

    Parameters
    ----------
    reference : float
        Level of gEUD [unit of the quantity], >= 0.
    exponent : float
        The exponent a, any number but 0: large for serial organs, 1 for parallel ones, negative for targets.
    form : {"deviation", "over", "under", "value"}
        Whether gEUD is penalised on both sides of the reference, only above, or only below it, or is itself the value,
        for a constraint.

    Raises
    ------
    InputError
        When a number is not finite, `reference` is negative, `exponent` is 0 or `form` another word.

    Source: Niemierko, Med. Phys. 26 (1999) 1100; Wu et al., Int. J. Radiat. Oncol. Biol. Phys. 52 (2002) 224.

    >>> import numpy as np
    >>> float(EUD(1.0, exponent=2.0).value(np.asarray([1.0, 7.0]), np.asarray([0.5, 0.5])))
    16.0
    """

    reference: float = 0.0
    exponent: float = 3.5
    form: Literal["deviation", "over", "under", "value"] = "deviation"

    name = "eud"

    def __post_init__(self) -> None:
        finite_number(self, reference=self.reference, exponent=self.exponent)
        one_of(self, "form", self.form, ("deviation", "over", "under", "value"))
        if self.reference < 0.0:
            raise InputError(f"eud: reference must be >= 0, got {self.reference!r}")
        if self.form == "value" and self.reference != 0.0:
            raise InputError(
                f"eud: the form 'value' has no reference, got {self.reference!r}: bound it by a constraint"
            )
        if self.exponent == 0.0:
            raise InputError("eud: exponent must not be 0 (1 is the mean; take a small one for the geometric mean)")

    def equivalent(self, values: Array, weights: Array) -> Array:
        """Return gEUD as a zero-dimensional array [unit of the quantity].

        Parameters
        ----------
        values, weights : array of shape (m,)
            As in `value`.
        """
        scale, _, power = self._powers(values, weights)
        return scale * power ** (1.0 / self.exponent)

    def value(self, values: Array, weights: Array) -> Array:
        equivalent = self.equivalent(values, weights)
        if self.form == "value":
            return equivalent
        distance = self._distance(equivalent)
        return distance * distance

    def gradient(self, values: Array, weights: Array) -> Array:
        xp = namespace(values)
        scale, ratio, power = self._powers(values, weights)
        slope = 1.0 if self.form == "value" else 2.0 * self._distance(scale * power ** (1.0 / self.exponent))
        factor = slope * power ** (1.0 / self.exponent - 1.0)
        return xp.astype(factor, values.dtype) * weights * ratio ** (self.exponent - 1.0)

    def _distance(self, equivalent: Array) -> Array:
        xp = namespace(equivalent)
        distance = equivalent - self.reference
        if self.form == "over":
            return xp.clip(distance, min=0.0)
        return xp.clip(distance, max=0.0) if self.form == "under" else distance

    def _powers(self, values: Array, weights: Array) -> tuple[Array, Array, Array]:
        """Return the scale, the values relative to it, and the weighted sum of their powers."""
        xp = namespace(values)
        held = weights > 0.0
        largest = xp.max(xp.where(held, values, 0.0))
        positive = ~(largest <= 0.0)  # true for NaN, which then shows
        largest = xp.where(positive, largest, xp.ones_like(largest))
        raised = xp.where(positive, xp.clip(values, min=0.0), xp.ones_like(values))
        raised = xp.maximum(raised, _FLOOR * largest)
        scale = largest if self.exponent > 0.0 else xp.min(xp.where(held, raised, largest))
        ratio = xp.where(held, raised / scale, xp.ones_like(raised))
        power = weighted_sum(ratio**self.exponent, weights)
        scale = xp.where(positive, scale, xp.zeros_like(scale))
        return xp.astype(scale, power.dtype), ratio, power

    def value_unit(self, of: str) -> str:
        return of if self.form == "value" else f"{of}^2"

    @property
    def level(self) -> float | None:
        return None if self.form == "value" else self.reference

    @property
    def pushes(self) -> Pushes:
        if self.form == "deviation":
            return "both"
        return "up" if self.form == "under" else "down"

    @classmethod
    def examples(cls) -> list[Self]:
        return [
            cls(1.0),
            cls(1.0, -10.0),
            cls(0.5, 40.0, "over"),
            cls(2.0, -2.0, "under"),
            cls(1.0, 1.0),
            cls(exponent=8.0, form="value"),
        ]

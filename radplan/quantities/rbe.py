r"""The relative biological effectiveness of a plan: what its dose is worth in photons.

Symbols: :math:`d` physical dose per fraction [Gy], :math:`D_{RBE}` RBE-weighted dose per fraction [Gy(RBE)]. All values
have the shape ``(scenarios, voxels)``.
"""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array
from radplan.quantities.base import QUANTITIES, Quantity
from radplan.quantities.ratio import check_floor, per_dose, per_dose_vjp


@QUANTITIES.register
@dataclass(frozen=True)
class RBE(Quantity):
    r"""RBE-weighted over physical dose, :math:`D_{RBE} / \max(d, d_0)`.

    The floor :math:`d_0` keeps the ratio and its derivative finite where there is no dose; metrics of RBE leave out the
    voxels below it. Fractions do not add up. Source: ICRU Report 93 (2016); the floor is ours.

    Parameters
    ----------
    floor : float
        Smallest dose per fraction that the ratio divides by [Gy], > 0. The default is 1 % of 2 Gy.

    Raises
    ------
    InputError
        When the floor is not > 0.

    >>> import numpy as np
    >>> RBE(floor=0.02).forward(np.asarray([2.0, 0.0]), np.asarray([2.2, 0.0])).tolist()
    [1.1, 0.0]
    """

    floor: float = 0.02

    name = "rbe"
    unit = "1"
    needs = ("physical_dose", "rbe_x_dose")
    additive = False
    ratio = True

    def __post_init__(self) -> None:
        check_floor(self.name, self.floor)

    def forward(self, physical_dose: Array, rbe_x_dose: Array) -> Array:
        return per_dose(rbe_x_dose, physical_dose, self.floor)

    def vjp(self, cotangent: Array, physical_dose: Array, rbe_x_dose: Array) -> tuple[Array, ...]:
        by_image, by_dose = per_dose_vjp(cotangent, rbe_x_dose, physical_dose, self.floor)
        return by_dose, by_image

    @classmethod
    def examples(cls) -> list[RBE]:
        return [cls(), cls(floor=1.0)]

r"""Linear energy transfer: its averages over dose and over tracks, and doses that it weights or sorts out.

LET is unrestricted and in water, and its average says which particles count: `let` is LETd (dose-averaged) of all
protons (of other ions: primaries and fragments), `primary_let` LETd of the protons that had no nuclear reaction,
`let_all` LETd of all charged particles, and `let_track` LETt (track-averaged) of the protons without a reaction.

Symbols: :math:`d` physical dose per fraction [Gy], :math:`L` LET [keV/um]. All values have the shape
``(scenarios, voxels)``.
"""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array
from radplan.errors import InputError
from radplan.quantities.base import QUANTITIES, Quantity
from radplan.quantities.ratio import check_floor, per_dose, per_dose_vjp


@QUANTITIES.register
@dataclass(frozen=True)
class LETDose(Quantity):
    r"""LET times dose, :math:`L d = \sum_j L_j D_j w_j`, an image that only models of ions give; linear in the weights.

    Source: Wilkens & Oelfke, Med. Phys. 30 (2003) 806.

    >>> LETDose().forward(5.0)
    5.0
    """

    name = "let_dose"
    unit = "Gy keV/um"
    needs = ("let_dose",)
    additive = True

    def forward(self, let_dose: Array) -> Array:
        return let_dose

    def vjp(self, cotangent: Array, let_dose: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class LET(Quantity):
    r"""LETd, dose-averaged LET of all protons (other ions: primaries, fragments), :math:`L = (L d) / \max(d, d_0)`.

    The floor :math:`d_0` keeps the ratio and its derivative finite where there is no dose; metrics of LET leave out the
    voxels below it. Fractions do not add up. Source: Wilkens & Oelfke, Med. Phys. 30 (2003) 806; the floor is ours.

    Parameters
    ----------
    floor : float
        Smallest dose per fraction that the ratio divides by [Gy], > 0. The default is 1 % of 2 Gy; 1 % of the
        prescribed dose per fraction is a good choice.

    Raises
    ------
    InputError
        When the floor is not > 0.

    >>> import numpy as np
    >>> LET(floor=0.02).forward(np.asarray([2.0, 0.0]), np.asarray([5.0, 0.0])).tolist()
    [2.5, 0.0]
    """

    floor: float = 0.02

    name = "let"
    unit = "keV/um"
    needs = ("physical_dose", "let_dose")
    additive = False
    ratio = True
    title = "LETd"

    def __post_init__(self) -> None:
        check_floor(self.name, self.floor)

    def forward(self, physical_dose: Array, let_dose: Array) -> Array:
        return per_dose(let_dose, physical_dose, self.floor)

    def vjp(self, cotangent: Array, physical_dose: Array, let_dose: Array) -> tuple[Array, ...]:
        by_image, by_dose = per_dose_vjp(cotangent, let_dose, physical_dose, self.floor)
        return by_dose, by_image

    @classmethod
    def examples(cls) -> list[LET]:
        return [cls(), cls(floor=1.0)]


@QUANTITIES.register
@dataclass(frozen=True)
class LETxDose(Quantity):
    r"""The share of LET in a biological dose, :math:`c L d`: linear in the weights, so convex goals stay convex.

    In :math:`d (1 + c L)`, a linear RBE that with the default is 1.1 at 2.5 keV/um, it is the second term, the dose
    that LET adds; the total is the sum with `physical_dose`.
    Source: Unkelbach et al., Int. J. Radiat. Oncol. Biol. Phys. 96 (2016) 1097.

    Parameters
    ----------
    c : float
        Weight of LET [um/keV], > 0.

    Raises
    ------
    InputError
        When c is not > 0.

    >>> LETxDose(c=0.04).forward(5.0)  # 2 Gy at 2.5 keV/um
    0.2
    """

    c: float = 0.04

    name = "let_x_dose"
    unit = "Gy"
    needs = ("let_dose",)
    additive = True

    def __post_init__(self) -> None:
        if not self.c > 0.0:
            raise InputError(f"c of let_x_dose must be > 0 um/keV, got {self.c}")

    def forward(self, let_dose: Array) -> Array:
        return self.c * let_dose

    def vjp(self, cotangent: Array, let_dose: Array) -> tuple[Array, ...]:
        return (self.c * cotangent,)

    @classmethod
    def examples(cls) -> list[LETxDose]:
        return [cls(), cls(c=0.1)]


@QUANTITIES.register
@dataclass(frozen=True)
class DirtyDose(Quantity):
    r"""Dose of the beamlets whose LET exceeds a threshold, :math:`\sum_j D_j w_j [L_j > L_0]`: linear in the weights.

    An image that only models of ions give; the threshold is an option of the engine that made it.
    Source: Heuchel, Hahn, Ödén, Traneus & Wulff, dirty and clean dose (2024).

    >>> DirtyDose().forward(1.5)
    1.5
    """

    name = "dirty_dose"
    unit = "Gy"
    needs = ("dirty_dose",)
    additive = True

    def forward(self, dirty_dose: Array) -> Array:
        return dirty_dose

    def vjp(self, cotangent: Array, dirty_dose: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class LETAllDose(Quantity):
    r"""Dose times LETd of all charged particles, an image that models of protons give where they are asked for it.

    Source: Grassberger and Paganetti, Phys. Med. Biol. 56 (2011) 6677.

    >>> LETAllDose().forward(5.0)
    5.0
    """

    name = "let_all_dose"
    unit = "Gy keV/um"
    needs = ("let_all_dose",)
    additive = True
    title = "LET dose of all charged particles"

    def forward(self, let_all_dose: Array) -> Array:
        return let_all_dose

    def vjp(self, cotangent: Array, let_all_dose: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class LETAll(Quantity):
    r"""LETd of all charged particles, target fragments included, :math:`(L_\mathrm{all} d) / \max(d, d_0)`.

    Codes differ in it by how they count recoils; `let` leaves those out. Source: Grassberger and Paganetti, Phys. Med.
    Biol. 56 (2011) 6677 for which particles count.

    Parameters
    ----------
    floor : float
        Smallest dose per fraction that the ratio divides by [Gy], > 0.

    Raises
    ------
    InputError
        When the floor is not > 0.

    >>> import numpy as np
    >>> LETAll(floor=0.02).forward(np.asarray([2.0, 0.0]), np.asarray([5.0, 0.0])).tolist()
    [2.5, 0.0]
    """

    floor: float = 0.02

    name = "let_all"
    unit = "keV/um"
    needs = ("physical_dose", "let_all_dose")
    additive = False
    ratio = True
    title = "LETd of all charged particles"

    def __post_init__(self) -> None:
        check_floor(self.name, self.floor)

    def forward(self, physical_dose: Array, let_all_dose: Array) -> Array:
        return per_dose(let_all_dose, physical_dose, self.floor)

    def vjp(self, cotangent: Array, physical_dose: Array, let_all_dose: Array) -> tuple[Array, ...]:
        by_image, by_dose = per_dose_vjp(cotangent, let_all_dose, physical_dose, self.floor)
        return by_dose, by_image

    @classmethod
    def examples(cls) -> list[LETAll]:
        return [cls(), cls(floor=1.0)]

r"""LET of primary protons, those that had no nuclear reaction: their dose, their fluence, and LETd and LETt from them.

Symbols, per fraction: :math:`d_p` dose of primaries [Gy], :math:`\Phi` their fluence [10^6/mm^2], :math:`L` LET
[keV/um], unrestricted and in water. All values have the shape ``(scenarios, voxels)``.
"""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array
from radplan.quantities.base import QUANTITIES, Quantity
from radplan.quantities.ratio import check_floor, per_dose, per_dose_vjp

GRAY = 0.16021766208
"""Dose in water of 10^6 tracks/mm^2 at a LET of 1 keV/um [Gy]."""

HIGHEST = 100.0
"""LET [keV/um] that protons do not reach: at their Bragg peak, 0.08 MeV, it is 82 (PSTAR)."""


def per_track(dose: Array, fluence: Array, floor: float) -> Array:
    """Return LETt [keV/um] of particles by their dose [Gy] and fluence [10^6/mm^2], exact from a dose `floor` [Gy] on.

    >>> import numpy as np
    >>> per_track(np.asarray([0.16021766208]), np.asarray([0.5]), 0.02).round(9).tolist()  # 0.5 * 10^6/mm^2
    [2.0]
    """
    return per_dose(dose, GRAY * fluence, floor / HIGHEST)


def per_track_vjp(cotangent: Array, dose: Array, fluence: Array, floor: float) -> tuple[Array, Array]:
    """Return the cotangents of dose and fluence for one of `per_track`."""
    by_dose, by_tracks = per_dose_vjp(cotangent, dose, GRAY * fluence, floor / HIGHEST)
    return by_dose, GRAY * by_tracks


@QUANTITIES.register
@dataclass(frozen=True)
class PrimaryDose(Quantity):
    r"""Dose of primaries, an image that models of protons give where they are asked for it.

    Source: Guan et al., Med. Phys. 42 (2015) 6234.

    >>> PrimaryDose().forward(1.9)
    1.9
    """

    name = "primary_dose"
    unit = "Gy"
    needs = ("primary_dose",)
    additive = True

    def forward(self, primary_dose: Array) -> Array:
        return primary_dose

    def vjp(self, cotangent: Array, primary_dose: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class PrimaryLETDose(Quantity):
    r"""Dose of primaries times their LET, an image that models of protons give where they are asked for it.

    Source: Wilkens & Oelfke, Med. Phys. 30 (2003) 806.

    >>> PrimaryLETDose().forward(5.0)
    5.0
    """

    name = "primary_let_dose"
    unit = "Gy keV/um"
    needs = ("primary_let_dose",)
    additive = True

    def forward(self, primary_let_dose: Array) -> Array:
        return primary_let_dose

    def vjp(self, cotangent: Array, primary_let_dose: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class PrimaryFluence(Quantity):
    r"""Fluence of primaries, an image that models of protons give where they are asked for it.

    Particles through a plane across the beam: that they fly at small angles to it is left out.
    Source: ICRU Report 85 (2011) for fluence.

    >>> PrimaryFluence().forward(12.5)
    12.5
    """

    name = "primary_fluence"
    unit = "1e6/mm^2"
    needs = ("primary_fluence",)
    additive = True

    def forward(self, primary_fluence: Array) -> Array:
        return primary_fluence

    def vjp(self, cotangent: Array, primary_fluence: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class PrimaryLET(Quantity):
    r"""LETd of primaries, :math:`(L d_p) / \max(d_p, d_0)`.

    It falls to 0 where primaries give less than the floor. Source: Wilkens & Oelfke, Med. Phys. 30 (2003) 806.

    Parameters
    ----------
    floor : float
        Smallest dose of primaries per fraction that the ratio divides by [Gy], > 0.

    Raises
    ------
    InputError
        When the floor is not > 0.

    >>> import numpy as np
    >>> PrimaryLET(floor=0.02).forward(np.asarray([2.0, 0.0]), np.asarray([5.0, 0.0])).tolist()
    [2.5, 0.0]
    """

    floor: float = 0.02

    name = "primary_let"
    unit = "keV/um"
    needs = ("primary_dose", "primary_let_dose")
    additive = False
    ratio = True
    title = "LETd of primaries"

    def __post_init__(self) -> None:
        check_floor(self.name, self.floor)

    def forward(self, primary_dose: Array, primary_let_dose: Array) -> Array:
        return per_dose(primary_let_dose, primary_dose, self.floor)

    def vjp(self, cotangent: Array, primary_dose: Array, primary_let_dose: Array) -> tuple[Array, ...]:
        by_image, by_dose = per_dose_vjp(cotangent, primary_let_dose, primary_dose, self.floor)
        return by_dose, by_image

    @classmethod
    def examples(cls) -> list[PrimaryLET]:
        return [cls(), cls(floor=1.0)]


@QUANTITIES.register
@dataclass(frozen=True)
class TrackLET(Quantity):
    r"""LETt, the track-averaged LET of primaries: the mean over their fluence, not over their dose.

    .. math:: L_t = \frac{\sum_i \Phi_i L_i}{\sum_i \Phi_i} = \frac{\rho \, d_p}{\Phi}

    With :math:`\rho` that of water, :math:`d_p` in Gy and :math:`\Phi` in 10^6/mm^2 that is
    :math:`d_p / (0.1602 \, \Phi)` keV/um. It never exceeds LETd of the same particles, and equals it where all have
    one energy: :math:`L_d - L_t` is the variance of LET over the fluence, divided by :math:`L_t`.
    Source: ICRU Report 16 (1970), Linear Energy Transfer; Guan et al., Med. Phys. 42 (2015) 6234.

    Parameters
    ----------
    floor : float
        Dose per fraction [Gy], > 0; exact where primaries give that much, as no LET exceeds 100 keV/um: the fluence
        divided by is at least that which would give the floor there.

    Raises
    ------
    InputError
        When the floor is not > 0.

    >>> import numpy as np
    >>> dose, fluence = np.asarray([0.32043532416]), np.asarray([1.0])
    >>> TrackLET(floor=0.02).forward(dose, fluence).round(9).tolist()  # 10^6/mm^2 of 2 keV/um
    [2.0]
    """

    floor: float = 0.02

    name = "let_track"
    unit = "keV/um"
    needs = ("primary_dose", "primary_fluence")
    additive = False
    ratio = True
    title = "LETt of primaries"

    def __post_init__(self) -> None:
        check_floor(self.name, self.floor)

    def forward(self, primary_dose: Array, primary_fluence: Array) -> Array:
        return per_track(primary_dose, primary_fluence, self.floor)

    def vjp(self, cotangent: Array, primary_dose: Array, primary_fluence: Array) -> tuple[Array, ...]:
        return per_track_vjp(cotangent, primary_dose, primary_fluence, self.floor)

    @classmethod
    def examples(cls) -> list[TrackLET]:
        return [cls(), cls(floor=20.0)]

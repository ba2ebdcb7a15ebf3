r"""LETt of all protons, secondary ones included: their dose and the fluence of their tracks, and LETt from both.

Symbols as in `radplan.quantities.primaries`. All values have the shape ``(scenarios, voxels)``.
"""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array
from radplan.quantities.base import QUANTITIES, Quantity
from radplan.quantities.primaries import per_track, per_track_vjp
from radplan.quantities.ratio import check_floor


@QUANTITIES.register
@dataclass(frozen=True)
class ProtonDose(Quantity):
    r"""Dose of all protons, an image that models of protons give where they are asked for it.

    Without deuterons, heavier fragments and recoils. Source: Guan et al., Med. Phys. 42 (2015) 6234.

    >>> ProtonDose().forward(1.9)
    1.9
    """

    name = "proton_dose"
    unit = "Gy"
    needs = ("proton_dose",)
    additive = True

    def forward(self, proton_dose: Array) -> Array:
        return proton_dose

    def vjp(self, cotangent: Array, proton_dose: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class ProtonFluence(Quantity):
    r"""Fluence of all protons, the length of their tracks per volume, whichever way they fly.

    An image that models of protons give where they are asked for it. Source: ICRU Report 85 (2011) for fluence.

    >>> ProtonFluence().forward(12.5)
    12.5
    """

    name = "proton_fluence"
    unit = "1e6/mm^2"
    needs = ("proton_fluence",)
    additive = True

    def forward(self, proton_fluence: Array) -> Array:
        return proton_fluence

    def vjp(self, cotangent: Array, proton_fluence: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class ProtonTrackLET(Quantity):
    r"""LETt, the track-averaged LET of all protons, secondary ones included: the mean over the fluence of their tracks.

    .. math:: L_t = \rho \, d / \Phi

    With :math:`\rho` that of water, d the dose of all protons in Gy and :math:`\Phi` their fluence in 10^6/mm^2 that is
    :math:`d / (0.1602 \, \Phi)` keV/um. Source: ICRU Report 16 (1970), Linear Energy Transfer.

    Parameters
    ----------
    floor : float
        Dose per fraction [Gy], > 0; exact where protons give that much, see `TrackLET`.

    Raises
    ------
    InputError
        When the floor is not > 0.

    >>> import numpy as np
    >>> dose, fluence = np.asarray([0.32043532416]), np.asarray([1.0])
    >>> ProtonTrackLET(floor=0.02).forward(dose, fluence).round(9).tolist()  # 10^6/mm^2 of 2 keV/um
    [2.0]
    """

    floor: float = 0.02

    name = "let_track_protons"
    unit = "keV/um"
    needs = ("proton_dose", "proton_fluence")
    additive = False
    ratio = True
    title = "LETt of all protons"

    def __post_init__(self) -> None:
        check_floor(self.name, self.floor)

    def forward(self, proton_dose: Array, proton_fluence: Array) -> Array:
        return per_track(proton_dose, proton_fluence, self.floor)

    def vjp(self, cotangent: Array, proton_dose: Array, proton_fluence: Array) -> tuple[Array, ...]:
        return per_track_vjp(cotangent, proton_dose, proton_fluence, self.floor)

    @classmethod
    def examples(cls) -> list[ProtonTrackLET]:
        return [cls(), cls(floor=20.0)]

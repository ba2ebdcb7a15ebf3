r"""A range shifter: a slab between nozzle and patient that shortens range and broadens spots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError

Floats = npt.NDArray[np.float64]

_ALPHA, _P = 0.0022, 1.77
"""Range of protons against energy, R = alpha E^p [cm, MeV]."""

_RADIATION_LENGTH = 40.55
"""Of PMMA [cm]; that of water is 36.08."""

_STOPPING = 1.165
"""Stopping power of PMMA relative to water."""

_LATERAL = _STOPPING**3 * 36.08 / _RADIATION_LENGTH * (1 + 2 * 0.038 * math.log(_STOPPING * 36.08 / _RADIATION_LENGTH))
"""Square of the factor by which PMMA scatters more than water of the same stopping."""


@dataclass(frozen=True)
class RangeShifter:
    r"""A slab of PMMA in the beam.

    Parameters
    ----------
    thickness : float
        Water-equivalent thickness [mm], > 0.
    isocenter_distance : float
        From its downstream face to the isocentre [mm].

    Raises
    ------
    InputError
        When the thickness is not > 0 or a length is not finite.

    >>> shifter = RangeShifter(thickness=40.0, isocenter_distance=200.0)
    >>> near, far = shifter.variance(np.asarray([0.0, 100.0]), range80=160.0)
    >>> bool(far > near > 0)
    True
    """

    thickness: float
    isocenter_distance: float

    def __post_init__(self) -> None:
        if not (self.thickness > 0.0 and math.isfinite(self.thickness) and math.isfinite(self.isocenter_distance)):
            raise InputError(
                f"a range shifter needs a thickness > 0 mm and a finite isocenter_distance, got {self.thickness} and "
                f"{self.isocenter_distance}"
            )

    def variance(self, gap: Floats, range80: float, charge: int = 1, mass: int = 1) -> Floats:
        r"""Return what scattering in the slab adds to the variance of a spot behind it.

        With :math:`s = t/R`, the spread inside the slab and its angles drift over the gap z to the surface,

        .. math:: \sigma^2 = P^2 (\sigma_T^2 + F_1 z + F_2 z^2), \quad
                  \sigma_T = (0.21 s + 0.77 s^2)(0.0191 + 0.0205 R) \text{ cm}.

        Ions of charge Z and mass A are protons of the same velocity with angles Z/A and lengths A/Z^2 times as large.
        Sources: Hong et al., Phys. Med. Biol. 41 (1996) 1305; Szymanowski & Oelfke, Phys. Med. Biol. 47 (2002) 3313;
        coefficients as matRad 3.2.2, ``doseCalc/matRad_calcSigmaRashi.m``, which takes ranges in mm for cm.

        Parameters
        ----------
        gap : array of shape (n,)
            Air between the slab and the patient's surface [mm]; less than 0 counts as 0.
        range80 : float
            Range in water before the slab [mm].
        charge, mass : int
            Z and A of the ion.

        Returns
        -------
        array of shape (n,)
            [mm^2]

        Raises
        ------
        InputError
            When the slab stops the beam.
        """
        s = self.thickness / range80
        if s >= 0.95:
            raise InputError(
                f"a range shifter of {self.thickness:g} mm leaves nothing of a beam of range {range80:g} mm: "
                "take a thinner one, or no spots of that energy"
            )
        length = mass / charge**2
        reach, z = range80 / 10.0 / length, np.maximum(gap, 0.0) / 10.0 / length * _STOPPING
        inside = (0.21 * s + 0.77 * s**2) * (0.0191027 + 0.0204539 * reach)
        common = 13.6**2 * _ALPHA ** (2 / _P) / (4 * _RADIATION_LENGTH * (2 / _P - 1))
        first = 2 * common * (((1 - s) ** (2 - 2 / _P) - 1) / (2 / _P - 2) - s) * reach ** (2 - 2 / _P)
        second = common * ((1 - s) ** (1 - 2 / _P) - 1) * reach ** (1 - 2 / _P)
        protons = _LATERAL * (inside**2 + first * z + second * z**2)
        return np.asarray(100.0 * (charge / mass) ** 2 * length**3 * protons)

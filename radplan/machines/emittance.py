r"""The phase space of a particle beam in front of the patient, and how wide that makes it where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np

from radplan.arrays import Array
from radplan.errors import InputError


@dataclass(frozen=True)
class Emittance:
    r"""Width, divergence and correlation of a beam in a plane in front of the isocentre, along x and y.

    A beam that drifts a distance s has the variance (Fermi-Eyges, scattering power T of the air on the way)

    .. math:: \sigma^2(s) = \sigma_0^2 + 2 \rho \sigma_0 \sigma'_0 s + \sigma'^2_0 s^2 + T s^3 / 3,

    and drifts on in the patient, where scattering in tissue is added to it.

    Parameters
    ----------
    distance : float
        From the plane to the isocentre [mm], >= 0.
    sigma : (float, float)
        Standard deviations of position along x and y there [mm].
    divergence : (float, float)
        Standard deviations of angle [rad].
    correlation : (float, float)
        Of position and angle; < 0 where the beam converges.
    air : float
        Scattering power of the air between plane and isocentre [rad^2/mm].

    Raises
    ------
    InputError
        When a number is out of its range.

    >>> beam = Emittance(500.0, (4.0, 3.0), (0.003, 0.002), (0.0, 0.0))
    >>> beam.variance(0.0).round(2).tolist()  # 16 + 1.5^2, 9 + 1
    [18.25, 10.0]
    """

    distance: float
    sigma: tuple[float, float]
    divergence: tuple[float, float]
    correlation: tuple[float, float]
    air: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (("distance", 0.0, 1e5), ("air", 0.0, 1.0)):
            value = self.__dict__[name]
            if not (isfinite(value) and low <= value <= high):
                raise InputError(f"emittance: {name} must lie in [{low:g}, {high:g}], got {value}")
        for name, low, high in (("sigma", 0.0, 1e3), ("divergence", 0.0, 1.0), ("correlation", -1.0, 1.0)):
            values = self.__dict__[name]
            if len(values) != 2 or not all(isfinite(value) and low <= value <= high for value in values):
                raise InputError(f"emittance: {name} must be two numbers in [{low:g}, {high:g}], got {values}")

    @property
    def moments(self) -> Array:
        """Coefficients a, b, c of the variance a + b h + c h^2 [mm^2] at h [mm] behind the isocentre, shape (2, 3)."""
        s, air = self.distance, self.air
        rows = []
        for sigma, divergence, correlation in zip(self.sigma, self.divergence, self.correlation, strict=True):
            place, mixed, angle = sigma**2, correlation * sigma * divergence, divergence**2
            rows.append(
                [
                    place + 2 * mixed * s + angle * s**2 + air * s**3 / 3,
                    2 * (mixed + angle * s + air * s**2 / 2),
                    angle + air * s,
                ]
            )
        return np.asarray(rows)

    def variance(self, behind: float) -> Array:
        """Return the variances along x and y at a distance behind the isocentre, or < 0 in front [mm^2], shape (2,)."""
        return self.moments @ np.asarray([1.0, behind, behind**2])

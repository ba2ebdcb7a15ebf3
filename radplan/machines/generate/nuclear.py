"""Reaction cross sections and the particles that reactions set free, of light ions in water."""

from __future__ import annotations

from functools import cache

import numpy as np

from radplan.arrays import Array
from radplan.machines.generate.stopping import MOLECULES, PROTON_MASS, SPECIES, RangeTable, cumulated, range_table

PER_MM = MOLECULES * 1e-27 / 10
"""Macroscopic cross section [1/mm] per mb and molecule."""

_CHARGE_CHANGING = {
    "carbon": 0.90,
    "boron": 0.90,
    "beryllium": 0.90,
    "lithium": 0.90,
    "helium": 1.00,
    "helium3": 0.80,
    "deuteron": 0.55,
    "triton": 0.60,
}
"""Part of Sihver's reaction cross section that changes the particle (Haettner 2013 measured 25 cm for carbon)."""


def proton_oxygen(energy: Array) -> Array:
    r"""Return the non-elastic cross section of protons on oxygen [mb], with its threshold of 7 MeV.

    :math:`45 A^{0.7} [1 + 0.016 \sin(5.3 - 2.63 \ln A)] [1 - 0.62 e^{-E/200} \sin(10.9 E^{-0.28})]`

    Source: Letaw, Silberberg, Tsao, Astrophys. J. Suppl. 51 (1983) 271.

    >>> round(float(proton_oxygen(np.asarray(100.0))))
    293
    """
    energy = np.maximum(np.asarray(energy, dtype=np.float64), 1e-3)
    high = 45 * 16**0.7 * (1 + 0.016 * np.sin(5.3 - 2.63 * np.log(16)))
    shape = 1 - 0.62 * np.exp(-energy / 200) * np.sin(10.9 * energy**-0.28)
    threshold = -np.expm1(-np.clip(energy - 7, 0, None) / 6)
    return high * np.clip(shape, 0, None) * threshold


def proton_proton(energy: Array) -> Array:
    r"""Return the elastic cross section of protons on hydrogen [mb]; below 10 MeV that of 10 MeV.

    :math:`13.73 - 15.04 \beta^{-1} + 8.76 \beta^{-2} + 68.67 \beta^4`

    Source: Charagi, Gupta, Phys. Rev. C 41 (1990) 1610.

    >>> round(float(proton_proton(np.asarray(150.0))), 1)
    22.7
    """
    square = 1 - (1 + np.maximum(energy, 10.0) / PROTON_MASS) ** -2
    return 13.73 - 15.04 / np.sqrt(square) + 8.76 / square + 68.67 * square**2


def oxygen_elastic(energy: Array) -> Array:
    r"""Return the cross section of elastic nuclear scattering of protons on oxygen [mb], Coulomb scattering apart.

    :math:`330 \, (100 / E)^{1.35}`; below 20 MeV that of 20 MeV. An estimate, about total less non-elastic cross
    sections of neutrons on oxygen at 100-200 MeV, 20 % uncertain. A first one of :math:`175 (100 / E)^{0.9}` was given
    up beside Monte Carlo depth doses (docs/proton_plans.md), whose peaks it left 2 % too high; the number itself is not
    fitted.

    >>> oxygen_elastic(np.asarray([100.0, 200.0])).round().tolist()
    [330.0, 129.0]
    """
    return 330.0 * (100.0 / np.maximum(energy, 20.0)) ** 1.35


def reaction(projectile: int, target: int) -> float:
    """Return the reaction cross section of two nuclei by their nucleon numbers, at high energy [mb].

    Source: Sihver et al., Phys. Rev. C 47 (1993) 1225.

    >>> round(2 * reaction(12, 1) + reaction(12, 16))  # carbon on a molecule of water
    1419
    """
    if 1 in (projectile, target):
        root = max(projectile, target) ** (1 / 3)
        overlap = (2.247 - 0.915 * (1 + 1 / root)) * (1 + 1 / root)
        return float(10 * np.pi * 1.36**2 * (1 + root - overlap) ** 2)
    inverse = projectile ** (-1 / 3) + target ** (-1 / 3)
    size = projectile ** (1 / 3) + target ** (1 / 3) - (1.581 - 0.876 * inverse) * inverse
    return float(10 * np.pi * 1.36**2 * size**2)


def attenuation(name: str, energy: Array) -> Array:
    """Return the probability per length that a species reacts in water at energies [MeV/u] in 1/mm.

    Ions below 10 MeV/u react in proportion to their energy.

    >>> round(float(1 / attenuation("carbon", np.asarray(200.0))))  # mean free path [mm]
    234
    """
    if name == "proton":
        return PER_MM * proton_oxygen(energy)
    nucleons = SPECIES[name].nucleons
    water = 2 * reaction(nucleons, 1) + reaction(nucleons, 16)
    return PER_MM * water * _CHARGE_CHANGING[name] * np.minimum(np.asarray(energy) / 10, 1.0)


class Survival:
    r"""The probability that a species crosses water without reacting, from residual range to residual range.

    >>> alone = Survival("carbon")
    >>> round(float(alone.between(np.asarray(234.0), np.asarray(0.0))), 2)  # one mean free path
    0.37
    """

    def __init__(self, name: str) -> None:
        self.table: RangeTable = range_table(name)
        self.per_length: Array = attenuation(name, self.table.energies)
        self._optical = cumulated(self.per_length, self.table.ranges)

    def optical(self, residual: Array) -> Array:
        """Return the mean number of reactions on the way from residual ranges [mm] to rest."""
        return np.interp(residual, self.table.ranges, self._optical)

    def between(self, start: Array, end: Array) -> Array:
        """Return the survival from a residual range to a smaller one [mm]."""
        return np.exp(self.optical(end) - self.optical(start))

    def rate(self, energy: Array) -> Array:
        """Return the reactions per length at energies [MeV/u] in 1/mm."""
        return np.interp(energy, self.table.energies, self.per_length)


@cache
def survival(name: str) -> Survival:
    """Return the survival of a species by name; the same one each time."""
    return Survival(name)

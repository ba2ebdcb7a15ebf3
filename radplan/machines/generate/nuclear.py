"""Reaction cross sections and the particles that reactions set free, of light ions in water."""

from __future__ import annotations

from functools import cache

import numpy as np

from radplan.arrays import Array
from radplan.machines.generate.stopping import MOLECULES, SPECIES, RangeTable, cumulated, range_table

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


_ENERGY = np.asarray(
    [7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 17.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 100.0, 150.0, 250.0]
)
_NON_ELASTIC = np.asarray([208, 308, 381, 425, 479, 510, 528, 535, 501, 449, 401, 362, 333, 313, 297, 295, 295.0])
_ELASTIC_ENERGY = np.asarray([20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 100.0, 120.0, 150.0, 180.0, 200.0, 250.0])
_ELASTIC = np.asarray([3273, 1690, 1077, 753, 553, 453, 360, 241, 171, 112, 83.5, 75.5, 82.2])
_PARTITION_ENERGY = np.asarray([20.0, 30.0, 50.0, 70.0, 100.0, 120.0, 150.0, 200.0, 250.0])
_PARTITION = np.asarray(
    [
        [0.361, 0.349, 0.391, 0.413, 0.439, 0.465, 0.480, 0.502, 0.536],
        [0.014, 0.041, 0.072, 0.085, 0.095, 0.101, 0.102, 0.105, 0.097],
        [0.190, 0.187, 0.137, 0.115, 0.101, 0.090, 0.081, 0.071, 0.064],
    ]
)
"""Of protons on oxygen, from ICRU Report 63 (2000): cross sections [mb] and shares of energy, at energies [MeV].

MCsquare uses the same tables, so that it is no independent check of them.
"""


def proton_oxygen(energy: Array) -> Array:
    """Return the non-elastic cross section of protons on oxygen [mb], 0 below 7 MeV.

    Source: ICRU Report 63 (2000), linear between 17 of its energies, and above 250 MeV that of 250 MeV.

    >>> proton_oxygen(np.asarray([5.0, 100.0, 200.0])).tolist()
    [0.0, 297.0, 295.0]
    """
    return np.interp(energy, _ENERGY, _NON_ELASTIC, left=0.0)


def oxygen_energy(energy: Array) -> tuple[Array, Array, Array]:
    """Return the shares of its energy that a proton, reacting on oxygen, gives protons, deuterons, alphas and recoils.

    Neutrons and photons carry the rest away, or it is spent to part the nucleus.

    Source: spectra of ICRU Report 63 (2000), integrated.

    >>> [float(share) for share in oxygen_energy(np.asarray(150.0))]
    [0.48, 0.102, 0.081]
    """
    protons, deuterons, heavier = (np.interp(energy, _PARTITION_ENERGY, row) for row in _PARTITION)
    return protons, deuterons, heavier


def proton_proton(energy: Array) -> Array:
    r"""Return the elastic cross section of protons on hydrogen [mb]; below 10 MeV that of 10 MeV.

    :math:`4710 \, E^{-1.126} + 0.0565 \, E`, E in MeV

    Source: Fippel, Soukup, Med. Phys. 31 (2004) 2263, there per mass of water.

    >>> proton_proton(np.asarray([100.0, 200.0])).round(1).tolist()
    [32.0, 23.4]
    """
    energy = np.maximum(energy, 10.0)
    return 4710.0 * energy**-1.126 + 0.0565 * energy


def oxygen_elastic(energy: Array) -> Array:
    """Return the cross section of protons that oxygen scatters elastically by more than about 5 degrees [mb].

    Below 20 MeV that of 20 MeV. Below 50 MeV most of it is Coulomb scattering, which counts as nuclear here.

    Source: ICRU Report 63 (2000), by the logarithms between 13 of its energies.

    >>> oxygen_elastic(np.asarray([100.0, 200.0])).round(1).tolist()
    [241.0, 75.5]
    """
    return np.exp(np.interp(np.log(np.maximum(energy, 20.0)), np.log(_ELASTIC_ENERGY), np.log(_ELASTIC)))


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
